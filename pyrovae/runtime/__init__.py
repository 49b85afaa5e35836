"""Batches, seeds, devices, memory, processes, precision, and the state of modules."""
