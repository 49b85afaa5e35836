"""``index.json``: which checkpoint of a run is the best, which is the last, and which are kept for ever."""

import re
import shutil
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.runs.atomic_files import read_sealed, write_sealed
from pyrovae.untrusted.bounded_files import remedy


def has_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint was ever completed in a folder.

    Raises:
        InputError: where there are several, and no index, which is written with the first.
    """
    index = folder / "index.json"
    if not index.exists() and len([*folder.glob("epoch-*")]) > 1:
        raise InputError(f"{index} is missing; {remedy}")
    return index.exists()


def checkpoints(folder: Path) -> list[str]:
    """The names of the checkpoints that stay: the best, the last, and those that are kept."""
    return sorted(_named(read_index(folder)))


def name_of_checkpoint(folder: Path, which: str) -> str:
    """The name of the ``best`` checkpoint, of the ``last``, or of one that is kept.

    Raises:
        InputError: where there is none.
    """
    index = read_index(folder)
    if not index:
        raise InputError(
            f"{folder} holds no checkpoint (no index.json); expected a run whose training got through its first epoch"
        )
    if which not in ("best", "last") and which not in _named(index):
        raise InputError(f"{folder} holds no checkpoint {which!r}; there are best, last, {', '.join(sorted(_named(index)))}")
    return index.get(which, index["last"] if which == "best" else which)


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index; it is empty before the first checkpoint.

    Raises:
        InputError: where it is not what was written, or names a checkpoint that is not there.
    """
    path = folder / "index.json"
    if not path.exists():
        return {}
    index = read_sealed(path)
    if not _is_index(index) or not all((folder / name).is_dir() for name in _named(index)):
        raise InputError(f"{path} names a checkpoint that is missing; {remedy}")
    return index


def enter_checkpoint(folder: Path, index: dict[str, Any], name: str, *, best: bool, keep: bool) -> None:
    """Mark a checkpoint as the last and on demand as the best or as kept; remove unmarked ones."""
    index = {**index, "last": name} | ({"best": name} if best else {})
    index["kept"] = [*index.get("kept", []), *([name] if keep else [])]
    write_sealed(folder / "index.json", index)
    _drop_unnamed(folder, index)


def _is_index(index: dict[str, Any]) -> bool:
    """Whether it has the names of checkpoints, and no place outside their folder."""
    if not {"last", "kept"} <= set(index) <= {"last", "kept", "best"} or not isinstance(index["kept"], list):
        return False
    return all(_is_name(name) for name in (*index["kept"], index["last"], index.get("best", index["last"])))


def _named(index: dict[str, Any]) -> set[str]:
    return {*index["kept"], *(index[which] for which in ("best", "last") if which in index)} if index else set()


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"epoch-[0-9]+(-[0-9]+)?(\.[0-9]+)?", name) is not None


def _drop_unnamed(folder: Path, index: dict[str, Any]) -> None:
    """Remove checkpoints that the index does not name, and what was half written."""
    for old in (*folder.glob("epoch-*"), *folder.glob(".*.partial")):
        if old.name not in _named(index):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
