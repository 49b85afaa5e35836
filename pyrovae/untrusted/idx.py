"""The IDX format of MNIST and its kin: two zero bytes, a type, a rank, the sizes as big-endian int32, the data."""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pyrovae.errors import InputError
from pyrovae.untrusted.bounded_files import opened

remedy = "delete the file and fetch it again"


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Read an uncompressed IDX file as a ``uint8`` array of shape ``(N, *item)``.

    Raises:
        InputError: for a header that is not that of such a file, and for a size other than the header states.
    """
    with opened(path) as file:
        shape = _read_shape(path, file, 1 + len(item))
        if shape[0] == 0 or shape[1:] != item:
            extra = "".join(f", {n}" for n in item)
            raise InputError(f"{path} states the shape {shape}; expected (N{extra}): {remedy}")
        start, found = file.tell(), path.stat().st_size
        _check_size(path, found, start + math.prod(shape), shape)
        content = file.read(found)
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_shape(path: Path, file: BinaryIO, rank: int) -> tuple[int, ...]:
    """Read the shape in a header of this rank."""
    magic, found = bytes([0, 0, 8, rank]), file.read(4)
    if found != magic:
        raise InputError(
            f"{path} begins with {found.hex(' ') or 'nothing'}; expected the IDX header {magic.hex(' ')}: {remedy}"
        )
    return struct.unpack(f">{rank}I", file.read(4 * rank).ljust(4 * rank, b"\0"))


def _check_size(path: Path, found: int, expected: int, shape: tuple[int, ...]) -> None:
    if found != expected:
        fault = "truncated" if found < expected else "too long"
        raise InputError(
            f"{path} is {fault}: it has {found} bytes; expected {expected}, its header stating the shape {shape}: {remedy}"
        )
