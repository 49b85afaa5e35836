"""A look at a netCDF file, which is HDF5, before its arrays are read.

HDF5 can have an array lie in another file, be made of others, or claim a shape of which nothing is stored. A file of
estimates is rows of numbers, and what is more than that is refused.
"""

from pathlib import Path

import h5py

from pyrovae.files import opened

FREE, RATIO = 2**26, 100
"""Bytes that an array may claim whatever is stored of it, and how many times the bytes of its file."""


def require_numbers(path: Path, group: str) -> None:
    """Raise a ValueError, or what HDF5 raises, for a group that holds more than arrays of numbers in this file.

    Raises:
        InputError: for a path that is no plain file.
    """
    with opened(path) as file:
        size = file.seek(0, 2)
        with h5py.File(file, "r") as content:
            if not isinstance(content.get(group, getlink=True), h5py.HardLink):
                raise ValueError(f"it has no group {group!r}")
            found = content[group]
            if not isinstance(found, h5py.Group):
                raise ValueError(f"{group!r} is no group")
            for name in found.keys():  # noqa: SIM118 (its keys are known to be texts)
                _require_own(found, str(name), size)


def _require_own(group: h5py.Group, name: str, size: int) -> None:
    """That a member is a plain array of numbers, stored here, and not far larger than the file."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r} is a link to elsewhere")
    array = group[name]
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "biufSV" or array.dtype.hasobject:
        raise ValueError(f"{name!r} is no array of numbers")
    if array.external or array.is_virtual:
        raise ValueError(f"{name!r} lies in another file")
    if array.shape is None or array.size * array.dtype.itemsize > max(FREE, RATIO * size):
        raise ValueError(f"{name!r} claims the shape {array.shape}, of which the file holds nothing")
