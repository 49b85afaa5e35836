"""Whether a recorded computation gives what the programs give, at the same random numbers, but for rounding."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

GRADIENT, BUFFER, VALUE = "the gradient of", "buffer", "the"
"""Kinds of what is compared."""
Outcome = Mapping[str, Mapping[Any, Tensor | None]]
"""What a computation gives or changes, by kind and by name; None for a gradient that reaches nothing."""

RELATIVE = {torch.float64: 1e-6, torch.float32: 5e-2}
"""How far apart rounding puts the same numbers, relative to their norm; networks of float32 may compute in bfloat16."""
OF_ALL = {torch.float64: 1e-10, torch.float32: 1e-4}
"""The same relative to the largest norm of the kind, for numbers that are nothing but rounding."""
LESS = 0.2, 1e-2
"""The two for numbers of less precision."""
OF_VALUES = 1e-3
"""How far apart, at the most, sums of densities may be, relative to their norm."""


def difference(program: Outcome, recording: Outcome) -> str | None:
    """What a recording gives otherwise than the programs, and by how much; None where all of it is the same."""
    every = [value for kind in program.values() for value in kind.values() if value is not None and _is_inexact(value)]
    relative, of_all = LESS
    for dtype in RELATIVE:
        if all(torch.finfo(value.dtype).eps <= torch.finfo(dtype).eps for value in every):
            relative, of_all = RELATIVE[dtype], OF_ALL[dtype]
            break
    for kind, values in program.items():
        most = min(relative, OF_VALUES) if kind == VALUE else relative
        floor = of_all * max((_norm(value) for value in values.values() if value is not None), default=0.0)
        for name, apart, norm in _apart(values, recording[kind]):
            if not apart <= most * norm + floor:
                return f"{kind} {name}".strip() + f" differs by {apart:.3g}, its norm being {norm:.3g}"
    return None


def _apart(values: Mapping[Any, Tensor | None], others: Mapping[Any, Tensor | None]) -> Iterator[tuple[Any, float, float]]:
    """The norms of differences, and those of the values."""
    for name, value in values.items():
        other = others[name]
        if value is None and other is None:
            continue
        value, other = (torch.zeros(()) if each is None else each for each in (value, other))
        if value.dim() and other.dim() and value.shape != other.shape:
            yield name, math.inf, _norm(value)
            continue
        dtype = torch.promote_types(torch.promote_types(value.dtype, other.dtype), torch.float64)
        value, other = value.to(dtype), other.to(value.device, dtype)
        same = (value == other) | (value.isnan() & other.isnan())
        yield name, float(torch.where(same, 0.0, value - other).norm()), _norm(value)


def _is_inexact(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _norm(value: Tensor) -> float:
    """Of the numbers that are finite."""
    value = value.to(torch.promote_types(value.dtype, torch.float64))
    return float(torch.where(value.isfinite(), value, 0.0).norm())
