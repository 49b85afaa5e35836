"""The IDX format of MNIST and its kin: two zero bytes, a type, a rank, the sizes as big-endian int32, the data."""

import math
import struct
from pathlib import Path

import numpy as np

from pyrovae.errors import InputError

remedy = "delete the file and fetch it again"


def read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """The ``uint8`` array of shape ``(N, *item)`` that an uncompressed IDX file holds.

    Raises:
        InputError: for a header that is not that of such a file, and for a size other than the header states.
    """
    content, rank = path.read_bytes(), 1 + len(item)
    start = 4 + 4 * rank
    magic = bytes([0, 0, 8, rank])
    if content[:4] != magic:
        found = content[:4].hex(" ") or "nothing"
        raise InputError(f"{path} begins with {found}; expected the IDX header {magic.hex(' ')}: {remedy}")
    shape = struct.unpack(f">{rank}I", content[4:start].ljust(4 * rank, b"\0"))
    if shape[0] == 0 or shape[1:] != item:
        extra = "".join(f", {n}" for n in item)
        raise InputError(f"{path} states the shape {shape}; expected (N{extra}): {remedy}")
    _check_size(path, len(content), start + math.prod(shape), shape)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _check_size(path: Path, found: int, expected: int, shape: tuple[int, ...]) -> None:
    if found != expected:
        fault = "truncated" if found < expected else "too long"
        raise InputError(
            f"{path} is {fault}: it has {found} bytes; expected {expected}, its header stating the shape {shape}: {remedy}"
        )
