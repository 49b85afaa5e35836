"""``pyrovae train --resume RUN``: go on with a training from its last checkpoint, as it began.

What follows may say where data and device are now, and how long to go on; all else is as it was.
"""

import argparse
from argparse import ArgumentError
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pyrovae.errors import InputError
from pyrovae.experiment.load import read_config
from pyrovae.experiment.messages import explain
from pyrovae.experiment.parser import Namespace, Parser
from pyrovae.experiment.settings import parse_settings, read_settings
from pyrovae.runs.settings_files import check_settings

may_change = (
    *("data.*", "evaluation.*", "overwrite", "resume", "trust"),
    *(f"training.{name}" for name in ("epochs", "patience", "device", "workers", "keep_every", "keep_minutes")),
)
"""Settings that may be changed, as patterns of names."""


def settings_to_resume(parser: Parser, run: Path, argv: Sequence[str], trust: Sequence[str]) -> Namespace:
    """Read the settings of a run, with those that the command line changes.

    Raises:
        InputError: where the folder is no run, and for what must be as it was.
    """
    source = run / "config.yaml"
    argv = _without_trust(argv)
    settings = {**read_settings(read_config(run), source, trust), "run": str(run), "overwrite": False}
    check_settings(run)
    try:
        config = parse_settings(parser, settings, source, trust, argv)
    except ArgumentError as error:
        raise InputError(explain(str(error), parser)) from error
    _require_the_same(parse_settings(parser, settings, source, trust), config, run)
    config.trust = [*trust]
    return config


def _without_trust(argv: Sequence[str]) -> list[str]:
    """Remove the modules to trust from a command line; no configuration can hold them."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    words.add_argument("--trust", action="append")
    return words.parse_known_args(argv)[1]


def _require_the_same(former: Namespace, now: Namespace, run: Path) -> None:
    before = dict(former.items(branches=False))
    for name, value in now.items(branches=False):
        if value != before.get(name) and not any(fnmatchcase(name, pattern) for pattern in may_change):
            raise InputError(
                f"{name} is {value!r}, and was {before.get(name)!r} in {run}, which goes on as it began; leave it out, or "
                "train in another folder"
            )
