"""Runtime: what everything runs on: batches, seeds, devices, memory, processes, precision, and the state of modules."""
