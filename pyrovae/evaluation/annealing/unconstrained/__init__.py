"""Constrained latents mapped to unconstrained space, where chains move."""
