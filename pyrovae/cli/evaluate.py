"""``pyrovae evaluate RUN``: make the estimates, table and figures of a trained run again.

An option ``--data.X VALUE`` overrides the configuration of the run, for data that were moved: ``--data.root`` of MNIST,
``--data.path`` of an array.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pyrovae.cli.device import available_device, default_device
from pyrovae.cli.evaluation import report
from pyrovae.cli.reopened import divide, reopen
from pyrovae.cli.torchrun import joined, own_device
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.likelihood.log_likelihood import Proposal
from pyrovae.experiment.parser import (
    Count,
    Level,
    Namespace,
    NonNegativeInt,
    Parser,
    PositiveInt,
    Tolerance,
    add_trust,
    make_parser,
    parse,
)

Limit = PositiveInt | Literal["all"]  # pyright: ignore[reportOperatorIssue]


def main(argv: Sequence[str]) -> int:
    """Evaluate a run on its test data."""
    own, moved = divide(argv)
    asked = parse(_parser(), own)
    run = Path(asked.run)
    vae, data, config = reopen(run, moved, asked.trust)
    device = own_device(available_device(asked.device, default_device(config)))
    with joined(device) as group:
        report(
            vae,
            data,
            run,
            **_sampling(asked, config),
            limit=_limit(asked, config),
            device=device,
            seed=asked.seed,
            num_chains=asked.num_chains,
            temperatures=asked.temperatures,
            start=asked.start,
            refine=asked.refine,
            writes=group.first,
        )
    return 0


def _parser() -> Parser:
    parser = make_parser("pyrovae evaluate", __doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    parser.add_argument("--num_samples", type=Count, default=None, help="Importance samples a datum, without --tolerance.")
    parser.add_argument("--limit", type=Limit, default=None, help="Evaluate the first so many test data, or all.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="The seed of the importance samples.")
    about = (
        "What is drawn from: the guide if not given, its mixture with a wider one and the prior, or that if k-hat is high."
    )
    parser.add_argument("--proposal", type=Proposal | None, default=None, help=about)
    _add_tolerance(parser)
    about = "Anneal chains of so many temperatures too, as a second opinion: 1000, say."
    parser.add_argument("--temperatures", type=Count, default=None, help=about)
    parser.add_argument("--num_chains", type=PositiveInt, default=16, help="Annealed chains a datum.")
    about = "What the annealed chains begin as draws of; from the guide they need fewer temperatures where it is good."
    parser.add_argument("--start", type=Start, default="prior", help=about)
    about = "Refine the proposal of each datum by so many gradient steps: what the ELBO gains is the amortization gap."
    parser.add_argument("--refine", type=Count, default=None, help=about)
    parser.add_argument("--device", type=str | None, default=None, help="As trained if not given.")
    add_trust(parser)
    return parser


def _add_tolerance(parser: Parser) -> None:
    about = "Estimate log p(x) of each datum to so many nats, by draws from the proposal that it needs: 0.1, say."
    parser.add_argument("--tolerance", type=Tolerance, default=None, help=about)
    about = "The level of the interval that the tolerance is for; 0.95 if neither this nor the run says it."
    parser.add_argument("--level", type=Level, default=None, help=about)
    about = "The most evaluations of the model for one datum to the tolerance; 500,000 if neither this nor the run says it."
    parser.add_argument("--budget", type=Count, default=None, help=about)


def _sampling(asked: Namespace, config: Namespace) -> dict[str, Any]:
    """Choose how log p(x) is estimated: what the command line says, and otherwise what the run was configured with."""
    configured = config.evaluation
    draws = _given(asked, "num_samples", "proposal")
    if asked.tolerance is not None and draws:
        raise InputError(
            f"--tolerance is {asked.tolerance} and {_said(draws)}; expected either, as a tolerance chooses draws and "
            "proposal datum by datum: leave one out"
        )
    tolerance = None if draws else asked.tolerance or configured.tolerance
    goal = _given(asked, "level", "budget")
    if tolerance is None and goal:
        raise InputError(f"{_said(goal)}, and there is no tolerance that it is for; expected one: add --tolerance 0.1")
    settings = {"num_samples": configured.num_samples, "level": configured.level, "budget": configured.budget}
    return settings | draws | goal | {"tolerance": tolerance}


def _given(asked: Namespace, *names: str) -> dict[str, Any]:
    return {name: asked[name] for name in names if asked[name] is not None}


def _said(options: dict[str, Any]) -> str:
    return " and ".join(f"--{name} is {value}" for name, value in options.items())


def _limit(asked: Namespace, config: Namespace) -> int | None:
    return None if asked.limit == "all" else asked.limit or config.evaluation.limit
