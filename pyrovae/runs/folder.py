"""The content of a run folder: what a run writes there, so that nothing else is ever replaced or removed."""

import shutil
from fnmatch import fnmatchcase
from pathlib import Path

from pyrovae.errors import InputError
from pyrovae.runs.lock import HOLDER, LOCKED

MARKS = ("metrics.jsonl", "checkpoints")
"""Entries that every run has from its beginning on."""
NAMES = (
    *("config.yaml", "split.npz", "manifest.json", "metrics.jsonl", "checkpoints", HOLDER, LOCKED, ".*.partial"),
    *("results.json", "summary.json", "log_likelihood.nc", "annealed.json", "annealed.npz", "figures"),
    *("rate_distortion.npz", "samples.npz", "samples.png", "report.html"),
)
INSIDE = ("checkpoints/index.json", "checkpoints/epoch-*", "checkpoints/.*.partial*", "figures/*.png")
"""Patterns of paths that are, with the names, all that a run writes."""


def check_free(path: Path, ours: bool) -> None:
    """Raise an InputError for a folder that is not empty or, with ``ours``, that holds what no run writes."""
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        raise InputError(f"{path} is a file or a broken link; expected a folder that does not exist yet: name another")
    if not path.exists() or not any(path.iterdir()):
        return
    if not ours:
        raise InputError(
            f"the run folder {path} exists; name another, or go on with it by --resume (resume=True), or replace it with "
            "--overwrite (overwrite=True)"
        )
    if objection := _objection(path):
        raise InputError(f"{path} is not a run folder, and is not overwritten: it {objection}; name another")


def _objection(path: Path) -> str | None:
    """Why a folder is not replaced, if it is not."""
    for entry in sorted(path.rglob("*")):
        if entry.is_symlink() or not _is_ours(entry.relative_to(path).as_posix()):
            return f"holds {entry.relative_to(path)}, which no run writes"
    begun = {entry.name for entry in path.iterdir() if not fnmatchcase(entry.name, ".*.partial")}
    begun -= {HOLDER, LOCKED, "checkpoints"}
    missing = [mark for mark in MARKS if not (path / mark).exists()]
    return f"has no {missing[0]}" if begun and missing else None


def _is_ours(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in (*NAMES, *INSIDE))


def clear(path: Path) -> None:
    """Remove all that a run writes, except its lock; what it is known by goes last, and the folder stays."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name in MARKS):
        if entry.name in (HOLDER, LOCKED) or not _is_ours(entry.name):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
