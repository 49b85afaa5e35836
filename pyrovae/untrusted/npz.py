"""Read the arrays of an ``.npz``: first their headers, and an array only if the file holds what its header claims.

A compressed file may stand for a thousand times its size, and a header of a hundred bytes may claim any shape. Nothing is
unpickled.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from pyrovae.untrusted.bounded_files import opened

FREE = 2 * 2**30
"""Bytes up to which arrays may have been compressed to anything: what a data set may hold in memory unasked."""
RATIO = 100
"""Multiple of the size of its file that a larger array may have."""
_methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Claim(NamedTuple):
    """Type and shape of an array by its header, which the file bears out."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Npz:
    """An open ``.npz``; ``claims`` says, by name, what it holds.

    Raises:
        ValueError: for a file that cannot hold what it claims. The zip format and its compression have errors of a dozen
            other types, all of them an ``Exception``.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._archive = zipfile.ZipFile(file)
        self._members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        total = sum(info.file_size for info in self._archive.infolist())
        if total > max(FREE, RATIO * size):
            raise ValueError(f"its {size:,} bytes stand for {total:,}; save it uncompressed, with np.savez")
        self.claims = {name: self._claim(info) for name, info in self._members.items()}

    def read(self, name: str) -> np.ndarray:
        """Read an array to its last byte, so that its checksum is checked."""
        with self._archive.open(self._members[name]) as member:
            array = npy.read_array(member, allow_pickle=False)
            if member.read(1):
                raise ValueError(f"{name} is longer than its header says")
        return array

    def _claim(self, info: zipfile.ZipInfo) -> Claim:
        if info.compress_type not in _methods:
            raise ValueError(f"{info.filename} is compressed by method {info.compress_type}, which NumPy does not write")
        with self._archive.open(info) as member:
            version = npy.read_magic(member)
            if version not in _readers:
                raise ValueError(f"{info.filename} has version {version} of the format; numbers are saved in 1.0 or 2.0")
            shape, _, dtype = _readers[version](member)
            start = member.tell()
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds pickled objects")
        if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{info.filename} states the shape {shape} of {dtype}, and has {info.file_size:,} bytes")
        return Claim(shape, dtype)


@contextmanager
def opened_npz(path: Path) -> Iterator[Npz]:
    """Open an ``.npz`` for reading."""
    with opened(path) as file:
        yield Npz(file, path.stat().st_size)
