"""Perturbation of parameters, so that none hides what a program makes of its input."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor, nn

PERTURBATION = 0.3
"""Largest step by which parameters that are all alike are moved apart, relative to their size."""
STATISTICS = ("running_mean", "running_var")
"""Buffers of batch normalisation, which begin alike for all features."""
SMALL = 1e-3
"""Size below which numbers multiply their input by next to nothing."""


@contextmanager
def perturbed(modules: list[nn.Module]) -> Iterator[None]:
    """Perturb parameters that would hide what a program makes of its input, such as a gate that begins at zero.

    These are the parameters of the modules, the running statistics of normalisation, and the values of ``pyro.param``
    statements. What is moved is put back.
    """
    parameters = [value for module in modules for value in module.parameters()]
    parts = {part for module in modules for part in module.modules()}
    running = [value for part in parts for name, value in part.named_buffers(recurse=False) if name in STATISTICS]
    stored = [value for _, value in pyro.get_param_store().named_parameters()]
    moved = {value: value.data.clone() for value in (*parameters, *running, *stored) if _hides(value)}
    for value in moved:
        value.data.copy_(_apart(value.data))  # unseen by autograd, for which graphs made before must stay as they are
    try:
        yield
    finally:
        for value, before in moved.items():
            value.data.copy_(before)


def _hides(value: Tensor) -> bool:
    """Whether some of these numbers, which may be written to, are zero, or all are small or alike."""
    plain = type(value) in (Tensor, nn.Parameter)  # others, quantised ones say, cannot do all that follows
    own = plain and value.is_floating_point() and value.numel() > 0 and not value.is_inference()
    if not own or any(step == 0 for step, size in zip(value.stride(), value.shape, strict=True) if size > 1):
        return False
    numbers = value.data
    alike = numbers.numel() > 1 and (numbers == numbers.flatten()[0]).all()
    return bool(alike or (numbers == 0).any() or numbers.abs().max() < SMALL)


def _apart(value: Tensor) -> Tensor:
    """Numbers of the same sign and about the same size, no two alike; zeros, and numbers all small, become larger."""
    steps = torch.linspace(1.0, 2.0, value.numel(), dtype=torch.float64).mul(1e3).sin().reshape(value.shape).to(value)
    size = value.abs().max()
    if size < SMALL:
        return value + PERTURBATION * steps
    alike = (value == value.flatten()[0]).all()
    return value + PERTURBATION * torch.where(alike | (value == 0), size * steps, 0.0)
