"""Checkpoints: weights that anything reads, a training state that loads without unpickling, and a manifest of both.

A checkpoint is a folder of ``weights.safetensors``, ``training.pt`` (all else that is needed to go on, loaded with
``weights_only=True``) and ``manifest.json`` with the SHA-256 of each, of the metrics up to there, and of itself. A tensor
that has several names, as tied layers have, is kept once; the metadata of ``weights.safetensors`` say which name stands for
which. A checkpoint is written to a temporary folder, flushed to the disk and renamed; ``index.json``, replaced in one step,
then says which checkpoint is ``best``, which is ``last``, and which are kept for ever. A process that dies at any moment
leaves the former ones whole.
"""

import io
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.runs.atomic_files import (
    corrupt,
    digest,
    digest_of_file,
    not_ours,
    read_sealed,
    require_format,
    sealed,
    told,
    write_folder,
)
from pyrovae.runs.checkpoint_index import enter_checkpoint, name_of_checkpoint, read_index
from pyrovae.untrusted.bounded_files import remedy
from pyrovae.untrusted.safetensors_file import read_weights
from pyrovae.untrusted.torch_file import read_state

FORMAT_VERSION = 1
"""Version of the files of a run, which each manifest states."""


class Place(NamedTuple):
    """Position of a checkpoint in a training.

    Attributes:
        epoch: the number of epochs that are over.
        batches: the number of batches of the next epoch that are over too.
    """

    epoch: int
    batches: int = 0

    @property
    def name(self) -> str:
        """Name of the checkpoint's folder."""
        return f"epoch-{self.epoch:05d}" + (f"-{self.batches:07d}" if self.batches else "")


class Prefix(NamedTuple):
    """The beginning of a file, by its length in bytes and SHA-256."""

    length: int
    sha256: str


def save_checkpoint(
    folder: Path,
    place: Place,
    weights: dict[str, Tensor],
    training: dict[str, Any],
    *,
    best: bool = False,
    keep: bool = False,
    metrics: Prefix | None = None,
) -> None:
    """Write a checkpoint into ``folder``, mark it as the last and on demand as the best, and remove unmarked ones.

    Args:
        folder: of all checkpoints of a run.
        place: where in the training it is.
        weights: by their names.
        training: numbers, strings and tensors, in mappings and lists.
        best: whether it is the best so far.
        keep: whether to keep it whatever comes.
        metrics: the file of metrics that belongs to it.

    Raises:
        InputError: where it cannot be written; all former ones are there then.
    """
    with told(folder):
        folder.mkdir(exist_ok=True)
    index = read_index(folder)
    files = {"weights.safetensors": _weights_as_bytes(weights), "training.pt": _as_bytes(training)}
    manifest = {
        "format": FORMAT_VERSION,
        "epoch": place.epoch,
        "batches": place.batches,
        "sha256": {name: digest(content) for name, content in files.items()},
        "metrics": metrics._asdict() if metrics else None,
    }
    name = next(
        name for number in count() if not (folder / (name := place.name + (f".{number}" if number else ""))).exists()
    )
    write_folder(folder / name, {**files, "manifest.json": sealed(manifest)})
    enter_checkpoint(folder, index, name, best=best, keep=keep)


def load_weights(folder: Path, which: str = "best") -> dict[str, Tensor]:
    """Load the weights of the best checkpoint in ``folder``, or of the last one if none was marked as the best.

    Args:
        folder: of all checkpoints of a run.
        which: ``best``, ``last``, or the name of one that is kept, such as ``epoch-00010``.

    Raises:
        InputError: where there is none, and where a file is missing or differs from what was written; it names the file.
    """
    return read_weights(checked_checkpoint(folder, which) / "weights.safetensors")


def load_training(folder: Path, which: str = "last") -> dict[str, Any]:
    """Load the training state of a checkpoint, which is all but its weights."""
    return read_state(checked_checkpoint(folder, which) / "training.pt")


def load_into(module: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load weights into a module's parameters and buffers.

    Raises:
        InputError: where names or shapes differ, or complex numbers stand for real ones; nothing is set then.
    """
    state = module.state_dict()
    expected = {name: tuple(value.shape) for name, value in state.items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found != expected:
        name = sorted({*expected.items()} ^ {*found.items()})[0][0]
        raise InputError(
            f"{source} does not fit the programs: {name!r} has shape {found.get(name, 'none: it is missing')} there and "
            f"{expected.get(name, 'none: it is missing')} here; build the programs as they were when trained"
        )
    for name, value in weights.items():
        if value.is_complex() and not state[name].is_complex():
            raise InputError(f"{source} does not fit the programs: {name!r} holds complex numbers; {remedy}")
    module.load_state_dict(weights)


def checked_checkpoint(folder: Path, which: str) -> Path:
    """Check every file of a checkpoint by its SHA-256, and return its folder."""
    checkpoint, digests = folder / name_of_checkpoint(folder, which), read_manifest(folder, which)["sha256"]
    for name, expected in digests.items():
        file = checkpoint / name
        if not file.is_file() or file.is_symlink():
            raise InputError(f"{file} is missing; {remedy}")
        if digest_of_file(file) != expected:
            raise corrupt(file)
    return checkpoint


def read_manifest(folder: Path, which: str) -> dict[str, Any]:
    """Read the manifest of a checkpoint."""
    path = folder / name_of_checkpoint(folder, which) / "manifest.json"
    manifest = read_sealed(path)
    require_format(path, manifest, FORMAT_VERSION)
    expected = {"format", "epoch", "batches", "sha256", "metrics"}
    files = {"weights.safetensors", "training.pt"}
    if set(manifest) != expected or not isinstance(manifest["sha256"], dict) or set(manifest["sha256"]) != files:
        raise not_ours(path)
    return manifest


def _as_bytes(training: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(training, buffer)
    return buffer.getvalue()


def require_storable(weights: dict[str, Any]) -> None:
    """Raise an InputError for weights that no file of weights can hold."""
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            found = f"is {type(value).__name__}, an extra state of a module"
        elif type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided:
            found = f"is a {type(value).__name__} with the layout {value.layout}"
        elif not _can_be_saved(value.dtype):
            found = f"has numbers of {value.dtype}"
        else:
            continue
        raise InputError(
            f"{name!r} {found}, which a run folder cannot hold; expected dense tensors of real numbers: keep it as such a "
            "buffer, or train without a run folder"
        )


def _can_be_saved(dtype: torch.dtype) -> bool:
    try:
        save({"": torch.empty(0, dtype=dtype)})
    except (KeyError, ValueError):
        return False
    return True


def _weights_as_bytes(weights: dict[str, Tensor]) -> bytes:
    aliases = _aliases(weights)
    kept = {name: value.detach().cpu() for name, value in weights.items() if name not in aliases}
    return save({name: value.clone(memory_format=torch.contiguous_format) for name, value in kept.items()}, metadata=aliases)


def _aliases(weights: dict[str, Tensor]) -> dict[str, str]:
    """The first name of each tensor that was named before, by its later names."""
    first: dict[Any, str] = {}
    names = {name: first.setdefault(_place(value), name) for name, value in weights.items()}
    return {alias: name for alias, name in names.items() if alias != name}


def _place(value: Tensor) -> tuple[Any, ...]:
    """The memory that a tensor lies in: two tensors of one place hold the same numbers."""
    return value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
