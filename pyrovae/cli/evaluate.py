"""``pyrovae evaluate RUN``: make the estimates, table and figures of a trained run again.

An option ``--data.X VALUE`` overrides the configuration of the run, for data that were moved: ``--data.root`` of MNIST,
``--data.path`` of an array.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pyrovae.cli.device import available_device, default_device
from pyrovae.cli.evaluation import report
from pyrovae.cli.reopened import divide, reopen
from pyrovae.cli.torchrun import joined, own_device
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.likelihood.log_likelihood import Proposal
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
            num_samples=asked.num_samples or config.evaluation.num_samples,
            limit=_limit(asked, config),
            device=device,
            seed=asked.seed,
            proposal=asked.proposal,
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
    parser.add_argument("--num_samples", type=Count, default=None, help="Importance samples a datum.")
    parser.add_argument("--limit", type=Limit, default=None, help="Evaluate the first so many test data, or all.")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="The seed of the importance samples.")
    about = "What is drawn from: the guide, its mixture with a wider one and the prior, or that where k-hat is high."
    parser.add_argument("--proposal", type=Proposal, default="guide", help=about)
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


def _limit(asked: Namespace, config: Namespace) -> int | None:
    return None if asked.limit == "all" else asked.limit or config.evaluation.limit
