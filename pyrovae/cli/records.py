"""What a run's folder says of itself in JSON: a line an epoch, and the numbers that evaluation found."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.runs.run import check_metrics
from pyrovae.untrusted.bounded_files import parse_json, read_json, read_text

METRICS = 2**25
"""Bytes of ``metrics.jsonl``, at the most: 32 MiB are a hundred thousand epochs."""
drawn = ("epoch", "train_bound", "train_reconstruction", "train_kl", "validation_bound")
"""What is drawn of an epoch."""
shares = ("kNN accuracy", "linear probe", "share of k-hat above threshold")
"""What is told as a percentage."""
LONGEST = 200
"""Characters of a name, at the most."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """What is on record of each epoch.

    Raises:
        InputError: where they are not what was written, and for a line that is no object in JSON, or has something else in
            the place of a number.
    """
    path = run / "metrics.jsonl"
    check_metrics(run)
    lines = read_text(path, METRICS).splitlines()
    rows = [parse_json(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]
    for number, row in enumerate(rows, 1):
        _require_numbers(f"line {number} of {path}", row, drawn, "copy the run again")
        if row.get("epoch") is None:
            raise InputError(f"line {number} of {path} does not say which epoch it is of; copy the run again")
    return rows


def read_summary(run: Path) -> dict[str, Any]:
    """The numbers of ``summary.json``, and what texts are among them, by name.

    Raises:
        InputError: where it cannot be read, or holds something else.
    """
    remedy = f"make it anew: pyrovae evaluate {run}"
    found = read_numbers(run / "summary.json")
    for name, value in found.items():
        if len(name) > LONGEST or not (value is None or isinstance(value, str) or is_number(value)):
            raise InputError(f"{run / 'summary.json'} has no number or text under {name[:LONGEST]!r}; {remedy}")
    _require_numbers(str(run / "summary.json"), found, shares, remedy)
    return found


def read_numbers(path: Path) -> dict[str, Any]:
    """The object of a file that evaluation left in its run.

    Raises:
        InputError: where it cannot be read.
    """
    return read_json(path, remedy=f"make it anew: pyrovae evaluate {path.parent}")


def _require_numbers(name: str, found: dict[str, Any], keys: Iterable[str], remedy: str) -> None:
    for key in keys:
        if not (found.get(key) is None or is_number(found[key])):
            raise InputError(f"{name} has {str(found[key])[:LONGEST]!r} under {key!r}; expected a number: {remedy}")


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
