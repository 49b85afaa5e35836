"""Comparison of numbers up to rounding."""

import torch
from torch import Tensor


def is_close(values: Tensor, others: Tensor, further: Tensor | float = 0.0) -> bool:
    """Whether numbers are equal up to rounding, as of sums in another order, and up to ``further``."""
    precision = 1e-8 if values.dtype == torch.float64 else 1e-4
    apart = (values - others).abs() <= precision * (1.0 + others.abs()) + further
    return bool((apart | (values == others) | (values.isnan() & others.isnan())).all())
