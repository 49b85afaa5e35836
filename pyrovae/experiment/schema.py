"""The schema of a training run: the signatures of what it builds.

``data``, ``model``, ``objective`` and ``training`` are the constructors of a data set, of ``VAE`` and of an objective, and
the arguments of ``fit``. A part is chosen by the name of its class; its arguments follow by their own names. With
``model.context_shape: [10]`` the programs are given the labels, one-hot of that length, as context: a conditional VAE.
"""

from pyrovae.data import Data
from pyrovae.experiment.parser import ActionYesNo, Count, Level, Parser, PositiveInt, Tolerance, make_parser
from pyrovae.objectives import Objective
from pyrovae.training.fit import fit
from pyrovae.vae import VAE

_given_elsewhere: set[str | int] = {"pair", "data", "validation", "objective", "run", "resume", "progress"}


def experiment_parser(prog: str = "pyrovae train") -> Parser:
    """The parser of a whole configuration, from the command line and YAML."""
    parser = make_parser(prog, "Train and evaluate a VAE.")
    _add_run(parser)
    _add_parts(parser)
    parser.add_function_arguments(fit, "training", skip=_given_elsewhere)
    parser.set_defaults({"training.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}})
    _add_evaluation(parser)
    parser.link_arguments("data", "model.event_shape", compute_fn=_event_shape, apply_on="instantiate")
    return parser


def _add_run(parser: Parser) -> None:
    parser.add_argument("--config", action="config", help="A YAML file; what follows on the command line overrides it.")
    parser.add_argument("--run", type=str, default="runs/latest", help="The folder to write.")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="Replace a former run in that folder.")
    about = "A run folder to go on with, from its last checkpoint, as it began; instead of --config."
    parser.add_argument("--resume", type=str | None, default=None, help=about)
    about = "With --resume: a module whose classes its config.yaml may name too, and which is imported; once for each."
    parser.add_argument("--trust", type=str, action="append", default=[], metavar="MODULE", help=about)


def _add_parts(parser: Parser) -> None:
    parser.add_argument("--data", type=Data, required=True, help="The data set.")
    parser.add_class_arguments(VAE, "model", help="The two programs.")
    parser.add_argument(
        "--start_at_mean", type=bool, default=True, help="Start the decoder's output at the training data's mean."
    )
    parser.add_argument(
        "--start_prior_at_data", type=bool, default=False, help="Start the pseudo-inputs of a Vamp prior at training data."
    )
    parser.add_argument("--objective", type=Objective, default={"class_path": "pyrovae.objectives.ELBO"}, help="The bound.")


def _add_evaluation(parser: Parser) -> None:
    about = "Importance samples a datum, where there is no tolerance."
    parser.add_argument("--evaluation.num_samples", type=PositiveInt, default=5000, help=about)
    about = "Evaluate the first so many test data; null: all."
    parser.add_argument("--evaluation.limit", type=Count, default=None, help=about)
    about = "How close log p(x) of each datum is to be, in nats, in the place of a number of samples; null: num_samples."
    parser.add_argument("--evaluation.tolerance", type=Tolerance, default=None, help=about)
    about = "The level of the interval for which there is a tolerance."
    parser.add_argument("--evaluation.level", type=Level, default=0.95, help=about)
    about = "The most evaluations of the model that a datum may take to be as close; null: 500,000."
    parser.add_argument("--evaluation.budget", type=Count, default=None, help=about)


def _event_shape(data: Data) -> tuple[int, ...]:
    return data.event_shape
