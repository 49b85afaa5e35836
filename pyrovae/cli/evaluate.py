"""``pyrovae evaluate RUN``: the estimates, table and figures of a trained run again.

An option ``--data.X VALUE`` overrides the configuration of the run, for data that were moved: ``--data.root`` of MNIST,
``--data.path`` of an array.
"""

from argparse import ArgumentError
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pyrovae.cli.evaluation import report
from pyrovae.cli.torchrun import joined, own_device
from pyrovae.cli.train import default_device
from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path import Start
from pyrovae.evaluation.likelihood.log_likelihood import Proposal
from pyrovae.experiment import load
from pyrovae.experiment.build import build_data
from pyrovae.experiment.load import read_config
from pyrovae.experiment.messages import explain
from pyrovae.experiment.parser import (
    Count,
    Namespace,
    NonNegativeInt,
    Parser,
    PositiveInt,
    add_trust,
    make_parser,
    parse,
)
from pyrovae.experiment.schema import experiment_parser
from pyrovae.experiment.settings import parse_settings, read_settings
from pyrovae.runs.split_record import check_same
from pyrovae.training.fit import check_device
from pyrovae.vae import VAE

Limit = PositiveInt | Literal["all"]  # pyright: ignore[reportOperatorIssue]


def main(argv: Sequence[str]) -> int:
    """Evaluate a run on its test data."""
    own, moved = divide(argv)
    asked = parse(_parser(), own)
    run = Path(asked.run)
    vae, data, config = reopen(run, moved, asked.trust)
    device = own_device(_device(asked.device, default_device(config)))
    with joined(device) as group:
        report(
            vae,
            data,
            run,
            num_samples=asked.num_samples or config.evaluation.num_samples,
            limit=_limit(asked, config),
            device=device,
            seed=asked.seed,
            proposal=asked.proposal,
            chains=asked.chains,
            temperatures=asked.temperatures,
            start=asked.start,
            refine=asked.refine,
            writes=group.first,
        )
    return 0


class Reopened(NamedTuple):
    """A trained pair, the data of its run, and its configuration."""

    vae: VAE
    data: Data
    config: Namespace


def reopen(run: Path, moved: Sequence[str] = (), trust: Sequence[str] = ()) -> Reopened:
    """A run's pair and data; ``moved`` are options ``--data.X VALUE`` that override its configuration.

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


def _parser() -> Parser:
    parser = make_parser("pyrovae evaluate", __doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    parser.add_argument("--num_samples", type=Count, default=None, help="Importance samples a datum.")
    parser.add_argument("--limit", type=Limit, default=None, help="Evaluate the first so many test data, or all.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="The seed of the importance samples.")
    about = "What is drawn from: the guide, its mixture with a wider one and the prior, or that where k-hat is high."
    parser.add_argument("--proposal", type=Proposal, default="guide", help=about)
    about = "Anneal chains of so many temperatures too, as a second opinion: 1000, say."
    parser.add_argument("--temperatures", type=Count, default=None, help=about)
    parser.add_argument("--chains", type=PositiveInt, default=16, help="Annealed chains a datum.")
    about = "What the annealed chains begin as draws of; from the guide they need fewer temperatures where it is good."
    parser.add_argument("--start", type=Start, default="prior", help=about)
    about = "Refine the proposal of each datum by so many gradient steps: what the ELBO gains is the amortisation gap."
    parser.add_argument("--refine", type=Count, default=None, help=about)
    parser.add_argument("--device", type=str | None, default=None, help="As trained if not given.")
    add_trust(parser)
    return parser


def divide(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command's own words, and the options of the data with their values."""
    own, moved = [], []
    words = iter(argv)
    for word in words:
        if word.startswith("--data."):
            moved += [word] if "=" in word else [word, *islice(words, 1)]
        else:
            own.append(word)
    return own, moved


def _limit(asked: Namespace, config: Namespace) -> int | None:
    return None if asked.limit == "all" else asked.limit or config.evaluation.limit


def _device(asked: str | None, trained: str) -> str:
    """The device asked for, or else that of the training where it is to be had here, or else the CPU."""
    if asked is not None:
        check_device(asked)
        return asked
    try:
        check_device(trained)
    except InputError:
        return "cpu"
    return trained
