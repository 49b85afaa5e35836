"""A run is a folder: what was asked for, what happened, and what came of it."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.runs.atomic_files import (
    append,
    corrupt,
    digest,
    digest_of_file,
    not_ours,
    read_sealed,
    require_format,
    told,
    write_file,
    write_sealed,
)
from pyrovae.runs.checkpoint import (
    Place,
    Prefix,
    format_version,
    has_checkpoint,
    load_training,
    load_weights,
    read_manifest,
    save_checkpoint,
)
from pyrovae.runs.lock import HOLDER, LOCKED, Lock
from pyrovae.untrusted.bounded_files import opened

_marks = ("metrics.jsonl", "checkpoints")
"""What every run has, from its beginning on."""
_names = (
    *("config.yaml", "split.npz", "manifest.json", "metrics.jsonl", "checkpoints", HOLDER, LOCKED, ".*.partial"),
    *("results.json", "summary.json", "log_likelihood.nc", "annealed.json", "annealed.npz", "figures"),
    *("rate_distortion.npz", "samples.npz", "samples.png", "report.html"),
)
_inside = ("checkpoints/index.json", "checkpoints/epoch-*", "checkpoints/.*.partial*", "figures/*.png")
"""With the names, all that a run writes, as patterns of paths below its folder."""
_asked = ("config.yaml", "split.npz")
"""What says what a run is; the manifest has their digests."""


class Former(NamedTuple):
    """What a training left, to go on from.

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
        self._asked = _files(config, split)
        self._metrics = hashlib.sha256()
        self._length = 0
        self._lock: Lock | None = None
        self._asks_anew = False
        _check_free(self.path, overwrite or resume)

    @property
    def resumes(self) -> bool:
        """Whether it goes on from what is there."""
        return self._resume

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @contextmanager
    def opened(self) -> Iterator[Former | None]:
        """Within it the folder is locked, and there to be written; what a former training left there, if we go on from it.

        Raises:
            InputError: where the folder is no longer free, so that a run begins only once; where another process is training
                there; where a file is missing or is not what was written.
        """
        _check_free(self.path, self._overwrite or self._resume)
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
        """Whether there is a checkpoint to go on from; where there must have been one there must be one still."""
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
        """Add a line to ``metrics.jsonl``."""
        self._check_lock()
        self._append((json.dumps(metrics) + "\n").encode())

    def save(self, place: Place, weights: dict[str, Tensor], training: dict[str, Any], **flags: bool) -> None:
        """Keep a checkpoint, ``best`` or to ``keep`` for ever, with the metrics up to here."""
        self._check_lock()
        if self._asks_anew:
            self._take_over_settings()
        metrics = Prefix(self._length, self._metrics.hexdigest())
        save_checkpoint(self.checkpoints, place, weights, training, metrics=metrics, **flags)

    def _check_lock(self) -> None:
        if self._lock is None:
            raise InputError(f"the run {self.path} is not opened; write to it within `with run.opened():`")
        self._lock.check()

    def _begin(self) -> None:
        """Make the folder's content, in place of a former run where that was asked for."""
        self._overwrite = self._asks_anew = False
        self._metrics, self._length = hashlib.sha256(), 0
        with told(self.path):
            _clear(self.path)
            self.checkpoints.mkdir(exist_ok=True)
        write_file(self.path / "metrics.jsonl", b"")
        for name, content in self._asked.items():
            write_file(self.path / name, content)
        _write_manifest(self.path, {name: [digest(content)] for name, content in self._asked.items()})

    def _go_on(self) -> Former:
        """The last checkpoint, after the metrics are cut back to it."""
        checkpoints, manifest = self.checkpoints, read_manifest(self.checkpoints, "last")
        check_settings(self.path)
        self._asks_anew = True
        metrics = _prefix(self.path / "metrics.jsonl", manifest)
        write_file(self.path / "metrics.jsonl", metrics)
        self._metrics, self._length = hashlib.sha256(metrics), len(metrics)
        return Former(
            Place(manifest["epoch"], manifest["batches"]),
            load_weights(checkpoints, "last"),
            load_weights(checkpoints, "best"),
            load_training(checkpoints, "last"),
            _lines(metrics),
        )

    def _take_over_settings(self) -> None:
        """Replace what was asked for by what is asked for now; between the writes either is right."""
        self._asks_anew = False
        former, now = _digests(self.path), {name: digest(content) for name, content in self._asked.items()}
        if any(former.get(name) != [value] for name, value in now.items()):
            _write_manifest(self.path, former | {name: [*former.get(name, []), value] for name, value in now.items()})
            for name, content in self._asked.items():
                write_file(self.path / name, content)
            _write_manifest(self.path, former | {name: [value] for name, value in now.items()})

    def _append(self, line: bytes) -> None:
        append(self.path / "metrics.jsonl", line)
        self._metrics.update(line)
        self._length += len(line)


def check_settings(run: Path) -> None:
    """Look at the SHA-256 of ``config.yaml`` and ``split.npz``.

    Raises:
        InputError: where one is missing, or is not what was written; it names the file.
    """
    for name, known in _digests(run).items():
        if digest_of_file(run / name) not in known:
            raise corrupt(run / name)


def check_metrics(run: Path) -> None:
    """Raise an InputError where the metrics are not what was written up to the last checkpoint."""
    _prefix(run / "metrics.jsonl", read_manifest(run / "checkpoints", "last"))


def _prefix(path: Path, manifest: dict[str, Any]) -> bytes:
    """What of the metrics belongs to a checkpoint."""
    if manifest["metrics"] is None:
        raise InputError(f"{path} has no part in the last checkpoint; expected a run that `fit` or `pyrovae train` wrote")
    length, sha256 = Prefix(**manifest["metrics"])
    with opened(path) as file:
        content = file.read(length)
    if digest(content) != sha256:
        raise corrupt(path)
    return content


def _lines(metrics: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in metrics.splitlines()]


def _files(config: str | None, split: dict[str, np.ndarray] | None) -> dict[str, bytes]:
    """The content of what says what a run is."""
    files = {} if config is None else {"config.yaml": config.encode()}
    if split is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **split)  # pyright: ignore[reportArgumentType]
        files["split.npz"] = buffer.getvalue()
    return files


def _digests(run: Path) -> dict[str, list[str]]:
    path = run / "manifest.json"
    manifest = read_sealed(path)
    require_format(path, manifest, format_version)
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or not all(
        name in _asked and isinstance(known, list) for name, known in digests.items()
    ):
        raise not_ours(path)
    return digests


def _write_manifest(run: Path, digests: dict[str, list[str]]) -> None:
    write_sealed(run / "manifest.json", {"format": format_version, "sha256": digests})


def _check_free(path: Path, ours: bool) -> None:
    """Raise an InputError where the folder is not empty, or, where that is asked for, holds what is not ours."""
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
    missing = [mark for mark in _marks if not (path / mark).exists()]
    return f"has no {missing[0]}" if begun and missing else None


def _is_ours(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in (*_names, *_inside))


def _clear(path: Path) -> None:
    """Remove what a run writes but its lock, last of all what it is known by, and leave the folder, which may be a link."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name in _marks):
        if entry.name in (HOLDER, LOCKED) or not _is_ours(entry.name):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)
