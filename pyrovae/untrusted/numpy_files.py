"""Read ``.npy`` and ``.npz`` files of numbers, never of pickled objects."""

from pathlib import Path
from typing import Any

import numpy as np

from pyrovae.errors import InputError
from pyrovae.untrusted.npz import opened_npz

label_keys = ("labels", "y")


class NpyFile:
    """The array of a ``.npy`` file, mapped into memory; a copy in another process maps the file anew.

    Raises:
        InputError: for a file that is truncated, corrupt, or holds objects.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # damage ends in errors of a dozen types, from zlib's to the tokeniser's
            raise _unreadable(path, error) from error
        self.shape = self.array.shape

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        return self.array[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return NpyFile, (self.path,)


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the data and, if there are any, the labels.

    Raises:
        InputError: for a file that is truncated, corrupt, or holds objects; and for keys that do not tell the data.
    """
    try:
        with opened_npz(path) as content:
            if len(content.claims) > 2:
                return _data_and_labels(path, dict.fromkeys(content.claims))
            arrays = {name: content.read(name) for name in content.claims}
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    return _data_and_labels(path, arrays)


def _data_and_labels(path: Path, arrays: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    keys = [key for key in arrays if key not in label_keys]
    if len(keys) != 1 or len(arrays) > 2:
        expected = "x, or a single array under any name, and at most one of labels and y"
        raise InputError(f"{path} holds {', '.join(arrays) or 'nothing'}; expected {expected}: save only these")
    labels = [arrays[key] for key in label_keys if key in arrays]
    return arrays[keys[0]], labels[0] if labels else None


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path} cannot be read ({error}); expected a whole file of numbers as np.save or np.savez writes it, without "
        f"pickled objects: write it again"
    )
