"""Class labels that come with data."""

import numpy as np
import torch
from torch import Tensor

from pyrovae.errors import InputError


def as_labels(labels: np.ndarray, size: int, name: str) -> Tensor:
    """Convert whole numbers, one a datum, to int64 of shape ``(N,)``.

    Raises:
        InputError: for another type of number, and for a count that differs from that of the data.
    """
    if labels.dtype.kind not in "iu":
        raise InputError(
            f"{name} holds {labels.dtype.name}; expected whole numbers: number the classes from 0 and save them as int64"
        )
    if labels.shape != (size,):
        raise InputError(
            f"{name} has shape {labels.shape}; expected {(size,)}, one label for each of {size} data: save as many "
            f"labels as data"
        )
    return torch.from_numpy(labels.astype(np.int64))
