"""``weights.safetensors``: a header in JSON that says where each tensor is, and the numbers. Nothing in it is ever run."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.untrusted.bounded_files import opened, remedy

HEADER = 2**24
"""Largest size of the header, in bytes: more than a hundred thousand tensors need."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors by name; several names may share one tensor.

    Raises:
        InputError: for a file that is none of the format, or whose header does not fit it.
    """
    with opened(path) as file:
        header = int.from_bytes(file.read(8), "little")
    if header > HEADER:
        raise InputError(f"{path} has a header of {header:,} bytes; expected {HEADER:,} at the most: {remedy}")
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no dict)
            return weights | {alias: weights[name] for alias, name in (file.metadata() or {}).items()}
    except Exception as error:  # damage ends in errors of several types, some of them torch's
        raise InputError(f"{path} cannot be read ({type(error).__name__}: {error}); {remedy}") from error
