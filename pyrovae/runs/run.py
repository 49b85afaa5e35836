"""The folder of a training run: its settings, metrics, checkpoints and results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.runs.atomic_files import told
from pyrovae.runs.checkpoint import Place, load_training, load_weights, read_manifest, save_checkpoint
from pyrovae.runs.checkpoint_index import has_checkpoint
from pyrovae.runs.folder import check_free, clear
from pyrovae.runs.lock import Lock
from pyrovae.runs.metrics_file import MetricsFile, parse_metrics, read_metrics
from pyrovae.runs.settings_files import check_settings, replace_settings, settings_files, write_settings


class Former(NamedTuple):
    """State of an earlier training, to go on from.

    Attributes:
        place: where the last checkpoint is.
        weights: of the last checkpoint.
        best: of the best checkpoint; of the last one, where none was best.
        training: the state beside the weights.
        metrics: of the epochs that are over, one mapping each.
    """

    place: Place
    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    training: dict[str, Any]
    metrics: list[dict[str, Any]]


class Run:
    """The folder of one training run. Nothing is written before it is opened, by ``fit``.

    It holds ``config.yaml`` (every setting, defaults too), ``split.npz`` (which datum was in which part), ``metrics.jsonl``
    (one line an epoch), ``checkpoints/``, ``manifest.json`` (SHA-256 of the first two), and what evaluation adds. While a
    training writes it ``lock.json`` says which process does.

    Args:
        path: the folder; it must not exist, or be empty, unless ``overwrite`` or ``resume``.
        overwrite: replace a former run there, once; nothing is removed that a run does not write.
        resume: go on from the last checkpoint there, or begin where there is none.
        config: the text of ``config.yaml``.
        split: arrays for ``split.npz``.

    Raises:
        InputError: where the folder holds something and neither is set, or holds something that no run writes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        resume: bool = False,
        config: str | None = None,
        split: dict[str, np.ndarray] | None = None,
    ) -> None:
        if overwrite and resume:
            raise InputError("overwrite and resume are both set: a former run is either replaced or gone on with; take one")
        self.path = Path(path)
        self._overwrite = overwrite
        self._resume = resume
        self._settings = settings_files(config, split)
        self._settings_are_older = False
        self._metrics: MetricsFile | None = None
        self._lock: Lock | None = None
        check_free(self.path, overwrite or resume)

    @property
    def resumes(self) -> bool:
        """Whether training goes on from an earlier one in the folder."""
        return self._resume

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @contextmanager
    def opened(self) -> Iterator[Former | None]:
        """Lock the run folder and open it for writing; yields what a former training left there, if it goes on from that.

        Raises:
            InputError: where the folder is no longer free, so that a run begins only once; where another process is training
                there; where a file is missing or is not what was written.
        """
        check_free(self.path, self._overwrite or self._resume)
        with told(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.path)
        lock.acquire()
        try:
            self._lock = lock
            yield self._go_on() if self._resume and self._was_begun() else self._begin()
        finally:
            self._lock = None
            lock.release()

    def _was_begun(self) -> bool:
        """Whether there is a checkpoint to go on from, which a trained run must still have."""
        if has_checkpoint(self.checkpoints):
            return True
        metrics = self.path / "metrics.jsonl"
        if (self.path / "results.json").exists() or (metrics.exists() and metrics.read_bytes().count(b"\n") > 1):
            raise InputError(
                f"{self.path} was trained, and has no checkpoint any more: put its checkpoints back, or replace it with "
                "--overwrite (overwrite=True)"
            )
        return False

    def log(self, metrics: dict[str, Any]) -> None:
        """Append the metrics of an epoch to ``metrics.jsonl``."""
        self._opened_metrics().append(metrics)

    def save(self, place: Place, weights: dict[str, Tensor], training: dict[str, Any], **flags: bool) -> None:
        """Write a checkpoint, marked as ``best`` or to ``keep`` for ever, with the metrics so far."""
        metrics = self._opened_metrics()
        if self._settings_are_older:
            self._settings_are_older = False
            replace_settings(self.path, self._settings)
        save_checkpoint(self.checkpoints, place, weights, training, metrics=metrics.written, **flags)

    def _opened_metrics(self) -> MetricsFile:
        """The file of metrics, while the folder is locked."""
        if self._lock is None or self._metrics is None:
            raise InputError(f"the run {self.path} is not opened; write to it within `with run.opened():`")
        self._lock.check()
        return self._metrics

    def _begin(self) -> None:
        """Make the folder's content, in place of a former run where that was asked for."""
        self._overwrite = self._settings_are_older = False
        with told(self.path):
            clear(self.path)
            self.checkpoints.mkdir(exist_ok=True)
        self._metrics = MetricsFile(self.path)
        write_settings(self.path, self._settings)

    def _go_on(self) -> Former:
        """The last checkpoint, after the metrics are cut back to it."""
        checkpoints, manifest = self.checkpoints, read_manifest(self.checkpoints, "last")
        check_settings(self.path)
        self._settings_are_older = True
        metrics = read_metrics(self.path, manifest)
        self._metrics = MetricsFile(self.path, metrics)
        return Former(
            Place(manifest["epoch"], manifest["batches"]),
            load_weights(checkpoints, "last"),
            load_weights(checkpoints, "best"),
            load_training(checkpoints, "last"),
            parse_metrics(metrics),
        )
