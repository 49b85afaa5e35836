"""Compiling: what programs do to tensors, recorded, fused, and captured on a CUDA device."""

from pyrovae.compiling.fallback import NotCompiledWarning

__all__ = ["NotCompiledWarning"]
