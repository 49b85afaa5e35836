"""``metrics.jsonl``: one line of numbers an epoch, of which every checkpoint knows the part that belongs to it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.runs.atomic_files import append, corrupt, digest, write_file
from pyrovae.runs.checkpoint import Prefix, read_manifest
from pyrovae.untrusted.bounded_files import opened

NAME = "metrics.jsonl"


class MetricsFile:
    """The metrics of a run that is being written.

    Args:
        run: the run folder.
        content: what the file holds from now on.
    """

    def __init__(self, run: Path, content: bytes = b"") -> None:
        self._path = run / NAME
        self._sha256 = hashlib.sha256(content)
        self._length = len(content)
        write_file(self._path, content)

    @property
    def written(self) -> Prefix:
        """Length and SHA-256 of what was written so far."""
        return Prefix(self._length, self._sha256.hexdigest())

    def append(self, metrics: dict[str, Any]) -> None:
        """Append the metrics of an epoch."""
        line = (json.dumps(metrics) + "\n").encode()
        append(self._path, line)
        self._sha256.update(line)
        self._length += len(line)


def check_metrics(run: Path) -> None:
    """Raise an InputError where the metrics are not what was written up to the last checkpoint."""
    read_metrics(run, read_manifest(run / "checkpoints", "last"))


def read_metrics(run: Path, manifest: dict[str, Any]) -> bytes:
    """Read the part of the metrics that belongs to the checkpoint with this manifest."""
    path = run / NAME
    if manifest["metrics"] is None:
        raise InputError(f"{path} has no part in the last checkpoint; expected a run that `fit` or `pyrovae train` wrote")
    length, sha256 = Prefix(**manifest["metrics"])
    with opened(path) as file:
        content = file.read(length)
    if digest(content) != sha256:
        raise corrupt(path)
    return content


def parse_metrics(content: bytes) -> list[dict[str, Any]]:
    """Parse the metrics of each epoch."""
    return [json.loads(line) for line in content.splitlines()]
