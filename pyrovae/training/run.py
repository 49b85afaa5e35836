"""A run is a folder: what was asked for, what happened, and what came of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pyrovae.errors import InputError

_marks = ("config.yaml", "metrics.jsonl", "checkpoints")


class Run:
    """The folder of one training run. Nothing is written before :meth:`begin`.

    It holds ``config.yaml`` (every setting, defaults too), ``split.npz`` (which datum was in which part), ``metrics.jsonl``
    (one line an epoch), ``checkpoints/``, and what evaluation adds.

    Args:
        path: the folder; it must not exist, or be empty, unless ``overwrite``.
        overwrite: replace a former run there.
        config: the text of ``config.yaml``.
        split: arrays for ``split.npz``.

    Raises:
        InputError: where the folder holds something and ``overwrite`` is not set, or holds something that is no run.
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
        self._config = config
        self._split = split
        _check_free(self.path, overwrite)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def begin(self) -> None:
        """Make the folder, in place of a former run if there is one."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self.checkpoints.mkdir(parents=True)
        if self._config is not None:
            (self.path / "config.yaml").write_text(self._config)
        if self._split is not None:
            np.savez_compressed(self.path / "split.npz", **self._split)  # pyright: ignore[reportArgumentType]
        (self.path / "metrics.jsonl").touch()

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; expected a folder that does not exist yet: name another")
    if not path.exists() or not any(path.iterdir()):
        return
    if not overwrite:
        raise InputError(f"the run folder {path} exists; name another, or replace it with --overwrite (overwrite=True)")
    if not any((path / mark).exists() for mark in _marks):
        raise InputError(f"{path} is not a run folder, and is not overwritten; name another")
