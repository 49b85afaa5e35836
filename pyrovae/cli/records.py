"""The records of a run in JSON: ``metrics.jsonl``, a line per epoch, and ``summary.json``, the numbers of its evaluation."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.runs.metrics_file import check_metrics
from pyrovae.untrusted.bounded_files import parse_json, read_json, read_text

FINGERPRINT = "fingerprint of the test data"
"""Name in ``summary.json`` of the digest of the data that a run was evaluated on."""
METRICS = 2**25
"""Largest number of bytes of ``metrics.jsonl``: 32 MiB are a hundred thousand epochs."""
DRAWN = ("epoch", "train_bound", "train_reconstruction", "train_kl", "validation_bound")
"""Numbers of an epoch that are drawn."""
SHARES = (
    *("kNN accuracy", "linear probe", "level of the tolerance", "share within the tolerance"),
    *("share untrusted", "share of k-hat above threshold"),
)
"""Numbers of a summary that are shown as percentages; the last one is of earlier versions."""
RENAMED = {"log p(x), less its bias": "log p(x), bias-corrected", "amortisation gap": "amortization gap"}
"""Names in the summaries of earlier versions, and what they are called now."""
LONGEST = 200
"""Largest number of characters of a name."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read the numbers of each epoch.

    Raises:
        InputError: where they are not what was written, and for a line that is no object in JSON, or has something else in
            the place of a number.
    """
    path = run / "metrics.jsonl"
    check_metrics(run)
    lines = read_text(path, METRICS).splitlines()
    rows = [parse_json(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]
    for number, row in enumerate(rows, 1):
        _require_numbers(f"line {number} of {path}", row, DRAWN, "copy the run again")
        if row.get("epoch") is None:
            raise InputError(f"line {number} of {path} has no number under 'epoch'; copy the run again")
    return rows


def write_summary(run: Path, summary: dict[str, Any]) -> None:
    """Write the numbers of an evaluation to ``summary.json``."""
    (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def read_summary(run: Path) -> dict[str, Any]:
    """Read the numbers and texts of ``summary.json``, by name.

    Raises:
        InputError: where it cannot be read, or holds something else.
    """
    remedy = f"make it again: pyrovae evaluate {run}"
    found = read_numbers(run / "summary.json")
    for name, value in found.items():
        if len(name) > LONGEST or not (value is None or isinstance(value, str) or is_number(value)):
            raise InputError(f"{run / 'summary.json'} has no number or text under {name[:LONGEST]!r}; {remedy}")
    _require_numbers(str(run / "summary.json"), found, SHARES, remedy)
    return {RENAMED.get(name, name): value for name, value in found.items()}


def read_numbers(path: Path) -> dict[str, Any]:
    """Read the JSON object of a file that evaluation left in its run.

    Raises:
        InputError: where it cannot be read.
    """
    return read_json(path, remedy=f"make it again: pyrovae evaluate {path.parent}")


def _require_numbers(name: str, found: dict[str, Any], keys: Iterable[str], remedy: str) -> None:
    for key in keys:
        if not (found.get(key) is None or is_number(found[key])):
            raise InputError(f"{name} has {str(found[key])[:LONGEST]!r} under {key!r}; expected a number: {remedy}")


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
