"""Compare a recorded computation with the programs at the same random numbers, up to rounding."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

GRADIENT, BUFFER, VALUE = "the gradient of", "buffer", "the"
"""Kinds of what is compared."""
Outcome = Mapping[str, Mapping[Any, Tensor | None]]
"""Results of a computation, by kind and by name; None for a parameter without a gradient."""

RELATIVE = {torch.float64: 1e-6, torch.float32: 5e-2}
"""Relative tolerance of a tensor, by its precision; networks of float32 may compute in bfloat16."""
OF_ALL = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Tolerance relative to the largest norm of the kind, for tensors that are only rounding errors."""
LESS = 0.2, 1e-2
"""Both tolerances for numbers of lower precision."""
OF_VALUES = 1e-3
"""Relative tolerance of sums of densities."""


def difference(program: Outcome, recording: Outcome) -> str | None:
    """Say where a recording differs from the programs, and by how much; None if it agrees."""
    every = [value for kind in program.values() for value in kind.values() if value is not None and _is_inexact(value)]
    relative, of_all = LESS
    for dtype in RELATIVE:
        if all(torch.finfo(value.dtype).eps <= torch.finfo(dtype).eps for value in every):
            relative, of_all = RELATIVE[dtype], OF_ALL[dtype]
            break
    for kind, values in program.items():
        most = min(relative, OF_VALUES) if kind == VALUE else relative
        norms = {name: 0.0 if value is None else _norm(value) for name, value in values.items()}
        floor = of_all * max(norms.values(), default=0.0)
        for name, value in values.items():
            apart = _apart(value, recording[kind][name])
            if not apart <= most * norms[name] + floor:
                return f"{kind} {name}".strip() + f" differs by {apart:.3g}, its norm being {norms[name]:.3g}"
    return None


def _apart(value: Tensor | None, other: Tensor | None) -> float:
    """The norm of a difference, in which equal infinities and NaN in both count as equal."""
    if value is None or other is None:
        one = other if value is None else value
        return 0.0 if one is None else float(one.to(torch.promote_types(one.dtype, torch.float64)).norm())
    if value.dim() and other.dim() and value.shape != other.shape:
        return math.inf
    if value.dtype == other.dtype and _is_inexact(value):
        apart = float(torch.linalg.vector_norm(value - other.to(value.device)))
        if math.isfinite(apart):
            return apart
    dtype = torch.promote_types(torch.promote_types(value.dtype, other.dtype), torch.float64)
    value, other = value.to(dtype), other.to(value.device, dtype)
    same = (value == other) | (value.isnan() & other.isnan())
    return float(torch.where(same, 0.0, value - other).norm())


def _is_inexact(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _norm(value: Tensor) -> float:
    """The norm of the finite numbers."""
    if _is_inexact(value) and math.isfinite(norm := float(torch.linalg.vector_norm(value))):
        return norm
    value = value.to(torch.promote_types(value.dtype, torch.float64))
    return float(torch.where(value.isfinite(), value, 0.0).norm())
