"""Read rows of numbers from a netCDF file, which is HDF5, and nothing else of it.

HDF5 can have an array lie in another file, be made of others, or claim a shape of which nothing is stored; and what names
the dimensions of arrays are references and lists, which a damaged file leads in circles. So arrays are read by their names,
where they are numbers that this file holds, and no more is looked at.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pyrovae.untrusted.bounded_files import opened

FREE, RATIO = 2**26, 100
"""Bytes that an array may always claim, and multiple of the size of its file that it may claim beyond."""
LONGEST = 8
"""Largest count of numbers in an attribute."""


class Numbers(NamedTuple):
    """Arrays of a file, and its attributes as arrays of one axis, by name."""

    arrays: dict[str, np.ndarray]
    attributes: dict[str, np.ndarray]


def read_numbers(path: Path, group: str, arrays: Iterable[str], attributes: Iterable[str]) -> Numbers:
    """Read a group of a netCDF file.

    Raises:
        InputError: for a path that is no plain file.
        Exception: of several types, for what is no such file, or has anything else under one of these names.
    """
    with opened(path) as file:
        size = file.seek(0, 2)
        with h5py.File(file, "r") as content:
            found = _own(content, group)
            if not isinstance(found, h5py.Group):
                raise ValueError(f"{group!r} is not a group")
            return Numbers(
                {name: _array(found, name, size) for name in arrays if name in found},
                {name: _attribute(found, name) for name in attributes if name in found.attrs},
            )


def _own(group: h5py.Group, name: str) -> Any:
    """Return a member that is stored in this file, not linked to."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"there is no {name!r}, or it is a link to elsewhere")
    return group[name]


def _array(group: h5py.Group, name: str, size: int) -> np.ndarray:
    found = _own(group, name)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} is not an array of numbers")
    if found.external or found.is_virtual:
        raise ValueError(f"{name!r} is a virtual or external array, which lies in another file")
    if found.shape is None or found.size * found.dtype.itemsize > max(FREE, RATIO * size):
        raise ValueError(f"{name!r} claims the shape {found.shape}, of which the file holds nothing")
    return found[()]


def _attribute(group: h5py.Group, name: str) -> np.ndarray:
    found = group.attrs.get_id(name)
    if found.dtype.kind not in "iuf" or np.prod(found.shape, dtype=float) > LONGEST:
        raise ValueError(f"the attribute {name!r} is not a number")
    return np.asarray(group.attrs[name]).reshape(-1)
