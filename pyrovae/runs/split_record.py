"""``split.npz``, the record of which datum was in which part, and of the shape of a datum."""

import math
from pathlib import Path

import numpy as np

from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.untrusted.bounded_files import remedy
from pyrovae.untrusted.npz import opened_npz

AXES = 16
"""Largest number of axes of a datum."""
NUMBERS = 2**31
"""Limit that the count of numbers in a datum must stay below."""


def read_event_shape(path: Path) -> tuple[int, ...]:
    """Read the shape of a datum.

    Raises:
        InputError: where the file does not say it.
    """
    shape = _read(path, "event_shape", (1, AXES))
    found = tuple(shape.tolist())
    if min(found, default=0) < 1 or math.prod(found) >= NUMBERS:
        raise InputError(f"{path} states no event shape of 1 to {AXES} positive lengths ({found}); {remedy}")
    return found


def holds_part(path: Path, part: str, index: np.ndarray) -> bool:
    """Whether the record of a part of the data has exactly these indices.

    Raises:
        InputError: where the file cannot be read.
    """
    found = _read(path, part, (len(index), len(index)))
    return np.array_equal(found, index)


def _read(path: Path, name: str, lengths: tuple[int, int]) -> np.ndarray:
    """Read the whole numbers under a name; none if there are fewer or more than expected."""
    try:
        with opened_npz(path) as record:
            claim = record.claims[name]
            if claim.dtype.kind not in "iu" or len(claim.shape) != 1:
                raise ValueError(f"{name} is of {claim.dtype} and shape {claim.shape}, not a row of whole numbers")
            if lengths[0] <= claim.shape[0] <= lengths[1]:
                return record.read(name)
    except Exception as error:  # damage ends in errors of a dozen types, from zlib's to the tokeniser's
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from error
    return np.empty(0, dtype=np.int64)


def check_same(data: Data, run: Path) -> None:
    """Raise an InputError where a part of the data is not the one of which the run has a record."""
    for part, index in data.record().items():
        if not holds_part(run / "split.npz", part, index):
            raise InputError(
                f"the data changed since training: their {part} part ({len(index)} data) is not the one in "
                f"{run / 'split.npz'}; take the same data, wherever they are now (--data.X as in training)"
            )
