"""Transition kernels of the chains, one a file."""
