"""Reopen a trained run: its pair, its data and its configuration."""

from argparse import ArgumentError
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.experiment import load
from pyrovae.experiment.build import build_data
from pyrovae.experiment.load import read_config
from pyrovae.experiment.messages import explain
from pyrovae.experiment.parser import Namespace
from pyrovae.experiment.schema import experiment_parser
from pyrovae.experiment.settings import parse_settings, read_settings
from pyrovae.runs.split_record import check_same
from pyrovae.vae import VAE


class Reopened(NamedTuple):
    """A trained pair, the data of its run, and its configuration."""

    vae: VAE
    data: Data
    config: Namespace


def reopen(run: Path, moved: Sequence[str] = (), trust: Sequence[str] = ()) -> Reopened:
    """Open the pair and the data of a run; ``moved`` are options ``--data.X VALUE`` that override its configuration.

    Raises:
        InputError: where the folder is no run, or names a class of a module that is not in ``trust``, and where the data are
            not those of the training.
    """
    vae = load(run, trust=trust)
    source = run / "config.yaml"
    config = _settings(read_settings(read_config(run), source, trust), source, moved, trust)
    data = build_data(config.data, source, trust)
    if config.model.context_shape is not None:
        data.condition_on_labels(*config.model.context_shape)
    check_same(data, run)
    return Reopened(vae, data, config)


def _settings(settings: dict[str, Any], source: Path, moved: Sequence[str], trust: Sequence[str]) -> Namespace:
    experiment = experiment_parser()
    try:
        return parse_settings(experiment, settings, source, trust, moved)
    except ArgumentError as error:
        raise InputError(explain(str(error), experiment)) from error


def divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into the command's own words, and the options of the data with their values."""
    own, moved = [], []
    words = iter(argv)
    for word in words:
        if word.startswith("--data."):
            moved += [word] if "=" in word else [word, *islice(words, 1)]
        else:
            own.append(word)
    return own, moved
