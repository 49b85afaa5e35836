"""A run is a folder: what was asked for, what happened, and what came of it."""

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from pyrovae.errors import InputError

_marks = ("metrics.jsonl", "checkpoints")
"""What every run has, from its beginning on."""
_names = (
    *("config.yaml", "split.npz", "metrics.jsonl", "checkpoints", "figures"),
    *("summary.json", "log_likelihood.nc", "samples.npz", "samples.png", "report.html", "annealed.json", "annealed.npz"),
)
_inside = ("checkpoints/index.json", "checkpoints/epoch-*", "checkpoints/.*.partial*", "figures/*.png")
"""With the names, all that a run writes, as patterns of paths below its folder."""


class Run:
    """The folder of one training run. Nothing is written before :meth:`begin`.

    It holds ``config.yaml`` (every setting, defaults too), ``split.npz`` (which datum was in which part), ``metrics.jsonl``
    (one line an epoch), ``checkpoints/``, and what evaluation adds.

    Args:
        path: the folder; it must not exist, or be empty, unless ``overwrite``.
        overwrite: replace a former run there, once; nothing is removed that a run does not write.
        config: the text of ``config.yaml``.
        split: arrays for ``split.npz``.

    Raises:
        InputError: where the folder holds something and ``overwrite`` is not set, or holds something that no run writes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        config: str | None = None,
        split: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._config = config
        self._split = split
        _check_free(self.path, overwrite)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def begin(self) -> None:
        """Make the folder, in place of a former run where that was asked for.

        Raises:
            InputError: where the folder is no longer free; so a run begins only once.
        """
        _check_free(self.path, self._overwrite)
        if self._overwrite:
            _clear(self.path)
            self._overwrite = False
        self.checkpoints.mkdir(parents=True)
        (self.path / "metrics.jsonl").touch()
        if self._config is not None:
            (self.path / "config.yaml").write_text(self._config)
        if self._split is not None:
            np.savez_compressed(self.path / "split.npz", **self._split)  # pyright: ignore[reportArgumentType]

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")


def _check_free(path: Path, overwrite: bool) -> None:
    if (path.exists() or path.is_symlink()) and not path.is_dir():
        raise InputError(f"{path} is a file or a broken link; expected a folder that does not exist yet: name another")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise InputError(f"the run folder {path} exists; name another, or replace it with --overwrite (overwrite=True)")
    if objection := _objection(path):
        raise InputError(f"{path} is not a run folder, and is not overwritten: it {objection}; name another")


def _objection(path: Path) -> str | None:
    """Why a folder is not replaced, if it is not."""
    for entry in sorted(path.rglob("*")):
        if entry.is_symlink() or not _is_ours(entry.relative_to(path).as_posix()):
            return f"holds {entry.relative_to(path)}, which no run writes"
    missing = [mark for mark in _marks if not (path / mark).exists()]
    return f"has no {missing[0]}" if missing else None


def _is_ours(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in (*_names, *_inside))


def _clear(path: Path) -> None:
    """Remove what a run writes, and leave the folder itself, which may be a link."""
    for entry in (path / name for name in _names):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
