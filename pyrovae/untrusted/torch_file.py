"""``training.pt``: what training goes on from, in torch's format, of which only tensors and plain values are read."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from pyrovae.errors import InputError
from pyrovae.untrusted.bounded_files import opened, remedy

VALUES, DEPTH = 10**6, 32
"""Largest number of values in a state, and of levels that they are nested in."""


def read_state(path: Path) -> dict[str, Any]:
    """Load a training state with ``weights_only=True``, which calls nothing that a file names.

    Raises:
        InputError: for a file that is none of the format, is compressed, or holds more than tensors and plain values.
    """
    try:
        with opened(path) as file:
            _require_stored(zipfile.ZipFile(file))
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
        _require_small(state)
    except InputError:
        raise
    except Exception as error:  # damage ends in errors of a dozen types
        found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InputError(f"{path} cannot be read ({found}); expected a training state: {remedy}") from error
    return state


def _require_stored(archive: zipfile.ZipFile) -> None:
    """Raise an error for a compressed file; torch writes none, so that nothing in a file is larger than the file."""
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("its members are compressed")


def _require_small(state: Any) -> None:
    """Raise an error for a state of too many values, counting what several lists share as often as they hold it."""
    left, values = [(state, 0)], 0
    while left:
        value, depth = left.pop()
        values += 1
        if values > VALUES or depth > DEPTH:
            raise ValueError(f"it holds more than {VALUES:,} values, or nests them in more than {DEPTH} levels")
        if isinstance(value, dict):
            left += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple | set):
            left += [(inner, depth + 1) for inner in value]
