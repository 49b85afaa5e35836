"""The schema of a training run: the signatures of what it builds.

``data``, ``model``, ``objective`` and ``training`` are the constructors of a data set, of ``VAE`` and of an objective, and
the arguments of ``fit``. A part is chosen by the name of its class; its arguments follow by their own names. With
``model.context_shape: [10]`` the programs are given the labels, one-hot of that length, as context: a conditional VAE.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from jsonargparse import ActionYesNo, ArgumentParser, Namespace, _typehints
from jsonargparse._util import import_object
from jsonargparse.typing import PositiveInt

import pyrovae.data
import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.networks
import pyrovae.objectives
import pyrovae.priors
from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.experiment.trust import guarded, parse_settings, read_settings
from pyrovae.objectives import Objective
from pyrovae.training.fit import fit
from pyrovae.vae import VAE

rooms = {
    "data": pyrovae.data,
    "prior": pyrovae.priors,
    "likelihood": pyrovae.likelihoods,
    "guide": pyrovae.guides,
    "encoder": pyrovae.networks,
    "decoder": pyrovae.networks,
    "objective": pyrovae.objectives,
}
"""Where the classes are from which a key of the configuration chooses."""

Count = PositiveInt | None  # pyright: ignore[reportOperatorIssue]
_given_elsewhere: set[str | int] = {"model", "guide", "data", "validation", "objective", "run", "resume", "progress"}


class Parser(ArgumentParser):
    """A parser in which another class begins with its own defaults.

    jsonargparse hands on what a class was given to the class that takes its place, where both have an argument of that name:
    what was said should be, but a default of the one is no wish for the other.
    """

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        with _defaults_left_behind():
            return super().parse_args(*args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> Namespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        with _defaults_left_behind():
            return super().parse_object(*args, **kwargs)


@contextmanager
def _defaults_left_behind() -> Iterator[None]:
    hand_on = _typehints.discard_init_args_on_class_path_change

    def discard(action: Any, before: Any, now: Any) -> None:
        hand_on(action, before, now)
        if before and before.get("init_args") and before["class_path"] != now["class_path"]:
            defaults = inspect.signature(import_object(before["class_path"])).parameters  # pyright: ignore
            for name, value in [*before["init_args"].items(branches=True, nested=False)]:
                if name in defaults and _is_same(defaults[name].default, value):
                    before["init_args"].pop(name)

    with mock.patch.object(_typehints, "discard_init_args_on_class_path_change", discard):
        yield


def _is_same(default: Any, value: Any) -> bool:
    return (list(default) if isinstance(default, tuple) else default) == (list(value) if isinstance(value, tuple) else value)


class Experiment(NamedTuple):
    """What a configuration builds."""

    data: Data
    vae: VAE
    objective: Objective
    training: dict[str, Any]


def experiment_parser(prog: str = "pyrovae train") -> ArgumentParser:
    """The parser of a whole configuration, from the command line and YAML."""
    parser = Parser(prog=prog, exit_on_error=False, allow_abbrev=False, description="Train and evaluate a VAE.")
    parser.add_argument("--config", action="config", help="A YAML file; what follows on the command line overrides it.")
    parser.add_argument("--run", type=str, default="runs/latest", help="The folder to write.")
    parser.add_argument("--overwrite", action=ActionYesNo, default=False, help="Replace a former run in that folder.")
    about = "A run folder to go on with, from its last checkpoint, as it began; instead of --config."
    parser.add_argument("--resume", type=str | None, default=None, help=about)
    about = "With --resume: a module whose classes its config.yaml may name too, and which is imported; once for each."
    parser.add_argument("--trust", type=str, action="append", default=[], metavar="MODULE", help=about)
    parser.add_argument("--data", type=Data, required=True, help="The data set.")
    parser.add_class_arguments(VAE, "model", help="The two programs.")
    parser.add_argument(
        "--start_at_mean", type=bool, default=True, help="Start the decoder's output at the training data's mean."
    )
    parser.add_argument(
        "--start_prior_at_data", type=bool, default=False, help="Start the pseudo-inputs of a Vamp prior at training data."
    )
    parser.add_argument("--objective", type=Objective, default={"class_path": "pyrovae.objectives.ELBO"}, help="The bound.")
    parser.add_function_arguments(fit, "training", skip=_given_elsewhere)
    parser.set_defaults({"training.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}})
    parser.add_argument("--evaluation.num_samples", type=PositiveInt, default=5000, help="Importance samples a datum.")
    parser.add_argument(
        "--evaluation.limit", type=Count, default=None, help="Evaluate the first so many test data; null: all."
    )
    parser.link_arguments("data", "model.event_shape", compute_fn=_event_shape, apply_on="instantiate")
    return parser


def build(parser: ArgumentParser, config: Namespace, trust: Sequence[str] | None = None) -> Experiment:
    """Load the data and make the programs, their weights drawn from the training seed.

    Args:
        parser: of the whole configuration.
        config: what it made.
        trust: where the configuration is that of a run folder, modules whose classes it may name (:mod:`~.trust`).

    Raises:
        InputError: where data or parts cannot be made from their arguments.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed)
        with nullcontext() if trust is None else guarded(Path(config.run) / "config.yaml", trust):
            made = _instantiate(parser, config)
    if made.model.context_shape is not None:
        made.data.condition_on_labels(*made.model.context_shape)
    return Experiment(made.data, made.model, made.objective, vars(made.training))


def vae_maker(
    config: str, event_shape: tuple[int, ...], source: Path = Path("config.yaml"), trust: Sequence[str] = ()
) -> Callable[[], VAE]:
    """What builds the programs of a run, from the text of its ``config.yaml``, without its data.

    Args:
        config: the text.
        event_shape: the shape of a datum.
        source: the file that it is from, for messages.
        trust: modules whose classes it may name beside ours and those of torch (:mod:`~.trust`).

    Raises:
        InputError: where the text is no configuration of this library, or names a class of a module that is not trusted.
    """
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(VAE, "model")
    model = read_settings(config, source, trust).get("model")
    if not isinstance(model, dict):
        raise InputError(f"{source} does not describe a model; expected what `pyrovae train` wrote: copy the run again")
    parsed = parse_settings(parser, {"model": {**model, "event_shape": list(event_shape)}}, source, trust)
    return partial(_build_guarded, parser, parsed, source, trust)


def _build_guarded(parser: ArgumentParser, parsed: Namespace, source: Path, trust: Sequence[str]) -> VAE:
    with guarded(source, trust):
        return _instantiate(parser, parsed).model


def build_again(config: Namespace, event_shape: tuple[int, ...]) -> VAE:
    """The programs of a whole configuration once more, with other random numbers."""
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(VAE, "model")
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed + 1)
        return _instantiate(
            parser, Namespace(model=Namespace(**{**vars(config.model), "event_shape": list(event_shape)}))
        ).model


def build_data(data: Namespace, source: Path, trust: Sequence[str] = ()) -> Data:
    """The data that a run's configuration names, alone.

    Raises:
        InputError: where they cannot be made.
    """
    parser = Parser(exit_on_error=False)
    parser.add_argument("--data", type=Data, required=True)
    with guarded(source, trust):
        return _instantiate(parser, Namespace(data=data)).data


def _instantiate(parser: ArgumentParser, config: Namespace) -> Namespace:
    try:
        return parser.instantiate(config)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the configuration cannot be built ({type(error).__name__}: {error}); each part must be made from the shapes "
            "that it is given: see the class that is named in the message, or print the whole with --print_config"
        ) from error


def _event_shape(data: Data) -> tuple[int, ...]:
    return data.event_shape
