"""Conversion of raw numbers to float32 data, with refusals that name the value that cannot be used."""

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError


def check_dtype(dtype: np.dtype, name: str) -> None:
    """Accept floats, ``uint8`` and ``bool``.

    Raises:
        InputError: for any other type of number, and for what is no number.
    """
    if dtype.kind not in "fb" and dtype != np.uint8:
        raise InputError(
            f"{name} holds {dtype.name}; expected floats (taken as they are), uint8 (divided by 255) or bool (0 and 1): "
            f"save it again, for instance as x.astype(np.float32)"
        )


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Accept ``(N, *event_shape)`` with at least one datum of at least one number.

    Raises:
        InputError: for any other shape.
    """
    if len(shape) < 2 or 0 in shape:
        fault = "is empty: it" if 0 in shape else "does not say what a datum is: it"
        raise InputError(
            f"{name} {fault} has shape {shape}; expected (N, *event_shape) with the data along the first axis: "
            f"save it again, for instance as x.reshape(N, -1)"
        )


def as_floats(raw: np.ndarray) -> Tensor:
    """Convert to a float32 tensor of the same shape: ``uint8`` divided by 255, floats and ``bool`` as they are.

    Raises:
        InputError: for any other type.
    """
    check_dtype(raw.dtype, "x")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which `check_finite` reports
        x = torch.from_numpy(raw.astype(np.float32))
    return x.div_(255) if raw.dtype == np.uint8 else x


def check_finite(x: Tensor, index: np.ndarray) -> None:
    """Accept numbers that are neither infinite nor NaN, for data ``x`` that stand at ``index`` of their source.

    Raises:
        InputError: with the count and the first position.
    """
    _refuse(~x.isfinite(), x, index, "not finite as float32", "repair or drop these data")


def check_unit_interval(x: Tensor, index: np.ndarray, binarize: object) -> None:
    """Accept numbers in [0, 1], for data ``x`` that stand at ``index`` of their source.

    Raises:
        InputError: with the count and the first position.
    """
    remedy = f'binarize="{binarize}" reads them as probabilities: scale the data to [0, 1] or pass binarize="none"'
    _refuse(~((x >= 0) & (x <= 1)), x, index, "outside [0, 1]", remedy)


def _refuse(bad: Tensor, x: Tensor, index: np.ndarray, fault: str, remedy: str) -> None:
    count = int(bad.sum())
    if count:
        row, *rest = np.unravel_index(int(bad.flatten().byte().argmax()), tuple(x.shape))
        value, position = x[row, *rest].item(), [int(index[row]), *map(int, rest)]
        plural = "s" if count > 1 else ""
        raise InputError(f"x has {count} value{plural} {fault} ({value:g} at {position}); {remedy}")
