"""Checkpoints: weights that anything reads, a training state that loads without unpickling, and a manifest of both.

A checkpoint is a folder of ``weights.safetensors``, ``training.pt`` (optimiser, schedule and random generators, loaded with
``weights_only=True``) and ``manifest.json`` with the SHA-256 of each. A tensor that has several names, as tied layers have,
is kept once; the metadata of ``weights.safetensors`` say which name stands for which. A checkpoint is written to a
temporary folder, flushed to the disk and renamed; ``index.json``, replaced in one step, then says which checkpoint is
``best`` and which is ``last``. A process that dies at any moment leaves the former ones whole.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.files import read_json
from pyrovae.training.state_file import read_state
from pyrovae.training.weights_file import read_weights

format_version = 1


def save_checkpoint(folder: Path, epoch: int, weights: dict[str, Tensor], training: dict[str, Any], *, best: bool) -> None:
    """Write the checkpoint of an epoch into ``folder``, make it the last and, where told, the best, and drop the others."""
    folder.mkdir(exist_ok=True)
    name = f"epoch-{epoch:05d}"
    partial = folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _save_weights(partial / "weights.safetensors", weights)
    torch.save(training, partial / "training.pt")
    digests = {file.name: _digest(file) for file in sorted(partial.iterdir())}
    manifest = {"format": format_version, "epoch": epoch, "sha256": digests}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    for path in [*partial.iterdir(), partial]:
        _flush(path)
    shutil.rmtree(folder / name, ignore_errors=True)
    partial.rename(folder / name)
    index = {**_index(folder), "last": name} | ({"best": name} if best else {})
    _write_index(folder, index)
    for old in folder.glob("epoch-*"):
        if old.name not in index.values():
            shutil.rmtree(old)


def load_weights(folder: Path, which: str = "best") -> dict[str, Tensor]:
    """The weights of the best checkpoint (of the last one, where no best was told) in ``folder``.

    Raises:
        InputError: where there is none, and where a file is missing or differs from what was written; it names the file.
    """
    return read_weights(checked_checkpoint(folder, which) / "weights.safetensors")


def load_training(folder: Path, which: str = "last") -> dict[str, Any]:
    """The training state beside the weights: ``epoch``, ``optimizer``, ``scheduler``, ``objective`` and ``random``."""
    return read_state(checked_checkpoint(folder, which) / "training.pt")


def load_into(module: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Set a module's parameters and buffers.

    Raises:
        InputError: where names or shapes differ; nothing is set then.
    """
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found != expected:
        name = sorted({*expected.items()} ^ {*found.items()})[0][0]
        raise InputError(
            f"{source} does not fit the programs: {name!r} has shape {found.get(name, 'none: it is missing')} there and "
            f"{expected.get(name, 'none: it is missing')} here; build the programs as they were when trained"
        )
    module.load_state_dict(weights)


def checked_checkpoint(folder: Path, which: str) -> Path:
    """The folder of the checkpoint, after a look at every file's SHA-256."""
    index = _index(folder)
    if not index:
        raise InputError(f"{folder} holds no checkpoint; expected a run whose training got through its first epoch")
    checkpoint = folder / index.get(which, index["last"])
    digests = _manifest(checkpoint)["sha256"]
    for name, digest in digests.items():
        file = checkpoint / name
        if not file.is_file():
            raise InputError(f"{file} is missing; the run is incomplete: copy it again, or train again")
        if _digest(file) != digest:
            raise InputError(f"{file} is corrupt: its SHA-256 is not that in manifest.json; copy it again, or train again")
    return checkpoint


def _save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    aliases = _aliases(weights)
    kept = {name: value.detach().cpu() for name, value in weights.items() if name not in aliases}
    alone = {name: value.clone(memory_format=torch.contiguous_format) for name, value in kept.items()}
    save_file(alone, path, metadata=aliases)


def _aliases(weights: dict[str, Tensor]) -> dict[str, str]:
    """The first name of each tensor that was named before, by its later names."""
    first: dict[Any, str] = {}
    names = {name: first.setdefault(_place(value), name) for name, value in weights.items()}
    return {alias: name for alias, name in names.items() if alias != name}


def _place(value: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies: two of the same place are the same numbers."""
    return value.device, value.data_ptr(), value.dtype, value.shape, value.stride()


def _manifest(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "manifest.json"
    manifest = read_json(path)
    names = {"weights.safetensors", "training.pt"}
    digests = manifest.get("sha256")
    if set(manifest) != {"format", "epoch", "sha256"} or not isinstance(digests, dict) or set(digests) != names:
        raise InputError(f"{path} is not a manifest of this library; copy the run again, or train again")
    if manifest["format"] != format_version:
        raise InputError(f"{path} has format {manifest['format']}; this version reads {format_version}: update pyrovae")
    return manifest


def _index(folder: Path) -> dict[str, str]:
    path = folder / "index.json"
    if not path.is_file():
        return {}
    index = read_json(path)
    if "last" not in index or not all(_is_name(name) and (folder / name).is_dir() for name in index.values()):
        raise InputError(f"{path} names a checkpoint that is not there; copy the run again, or train again")
    return index


def _is_name(name: Any) -> bool:
    """Whether this names a checkpoint, and not a place outside its folder."""
    return isinstance(name, str) and re.fullmatch(r"epoch-[0-9]+", name) is not None


def _write_index(folder: Path, index: dict[str, str]) -> None:
    partial = folder / ".index.json.partial"
    partial.write_text(json.dumps(index, indent=2) + "\n")
    _flush(partial)
    partial.replace(folder / "index.json")
    _flush(folder)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
