"""Data from a user's own array, saved with NumPy."""

from pathlib import Path

import numpy as np
from torch import Tensor

from pyrovae.data.base import Data
from pyrovae.data.labels import as_labels
from pyrovae.data.lazy import Source
from pyrovae.data.partition import by_fractions
from pyrovae.data.values import check_dtype, check_shape
from pyrovae.errors import InputError
from pyrovae.untrusted.numpy_files import NpyFile, read_npz


class Array(Data):
    """The data in a ``.npy`` or ``.npz`` file: an array of shape ``(N, *event_shape)``, of any event shape.

    Floats are taken as they are, ``uint8`` is divided by 255, ``bool`` becomes 0 and 1. An ``.npz`` holds the array
    under ``x``, or as its only array under any name, and may hold N whole numbers under ``labels`` or ``y``.

    Args:
        path: the file.
        binarize: ``none``, ``dynamic`` (drawn anew at each use), ``fixed`` or ``fixed(SEED)`` (drawn once), or
            ``threshold`` (1 from 0.5 on).
        validation: the fraction of the data that is set aside for validation.
        test: the fraction of the data that is set aside for testing.
        split_seed: fixes which datum goes where.
        in_memory: whether to hold the data in memory as float32 or, for a ``.npy``, read them as they are used; if
            null, in memory up to 2 GiB. A larger ``.npz`` is held as it was saved and converted as it is used.
        missing: whether NaN stands for a number that was not observed, which the programs are told by a mask; an error if
            not.

    Raises:
        InputError: for a file that is missing, truncated, corrupt, or of another format; for objects, strings, complex
            numbers and integers other than ``uint8``; for a shape that is not ``(N, *event_shape)``; for labels that
            are not N whole numbers; for values that are not finite, or are outside [0, 1] where they are binarised;
            for an unknown ``binarize``; and for fractions that leave a part empty.
    """

    def __init__(
        self,
        path: str,
        *,
        binarize: str = "none",
        validation: float = 0.1,
        test: float = 0.15,
        split_seed: int = 0,
        in_memory: bool | None = None,
        missing: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        source, labels = _open(self.path, in_memory)
        partition = by_fractions(source.shape[0], validation, test, split_seed)
        super().__init__(source, partition, labels=labels, binarize=binarize, in_memory=in_memory, missing=missing)

    @property
    def name(self) -> str:
        return self.path.stem


def _open(path: Path, in_memory: bool | None) -> tuple[Source, Tensor | None]:
    if not path.is_file():
        raise InputError(f"{path.absolute()} is missing, or is not a file; expected a .npy or .npz: check the path")
    with path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return _open_npy(path), None
    if start[:2] != b"PK":
        raise InputError(f"{path} is not in a format of NumPy; expected .npy or .npz: write it with np.save or np.savez")
    if in_memory is False:
        raise InputError(f"{path} is an .npz; in_memory=False expects a .npy, which can be read in pieces: use np.save")
    return _open_npz(path)


def _open_npy(path: Path) -> NpyFile:
    file = NpyFile(path)
    _check(file.array, path)
    return file


def _open_npz(path: Path) -> tuple[np.ndarray, Tensor | None]:
    x, labels = read_npz(path)
    _check(x, path)
    return x, None if labels is None else as_labels(labels, len(x), f"{path}, labels,")


def _check(array: np.ndarray, path: Path) -> None:
    check_dtype(array.dtype, str(path))
    check_shape(array.shape, str(path))
