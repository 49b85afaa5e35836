"""Build a pair, its data and its objective from a configuration."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.experiment.guarded_imports import guarded
from pyrovae.experiment.parser import Namespace, Parser, make_parser
from pyrovae.experiment.settings import REMEDY, parse_settings, read_settings
from pyrovae.objectives import Objective
from pyrovae.vae import VAE


class Experiment(NamedTuple):
    """The data, pair, objective and training settings of a configuration."""

    data: Data
    vae: VAE
    objective: Objective
    training: dict[str, Any]


def build(parser: Parser, config: Namespace, trust: Sequence[str] | None = None) -> Experiment:
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
    """Make a function that builds the programs of a run from the text of its ``config.yaml``, without its data.

    Args:
        config: the text.
        event_shape: the shape of a datum.
        source: the file that it is from, for messages.
        trust: modules whose classes it may name beside ours and those of torch (:mod:`~.trust`).

    Raises:
        InputError: where the text is no configuration of this library, or names a class of a module that is not trusted.
    """
    parser = make_parser()
    parser.add_class_arguments(VAE, "model")
    model = read_settings(config, source, trust).get("model")
    if not isinstance(model, dict):
        raise InputError(f"{source} does not describe a model; {REMEDY}")
    parsed = parse_settings(parser, {"model": {**model, "event_shape": list(event_shape)}}, source, trust)
    return partial(_build_guarded, parser, parsed, source, trust)


def _build_guarded(parser: Parser, parsed: Namespace, source: Path, trust: Sequence[str]) -> VAE:
    with guarded(source, trust):
        return _instantiate(parser, parsed).model


def build_again(config: Namespace, event_shape: tuple[int, ...]) -> VAE:
    """Build the programs of a configuration once more, with other random numbers."""
    parser = make_parser()
    parser.add_class_arguments(VAE, "model")
    with torch.random.fork_rng():
        torch.manual_seed(config.training.seed + 1)
        return _instantiate(
            parser, Namespace(model=Namespace(**{**vars(config.model), "event_shape": list(event_shape)}))
        ).model


def build_data(data: Namespace, source: Path, trust: Sequence[str] = ()) -> Data:
    """Build only the data that a run's configuration names.

    Raises:
        InputError: where they cannot be made.
    """
    parser = make_parser()
    parser.add_argument("--data", type=Data, required=True)
    with guarded(source, trust):
        return _instantiate(parser, Namespace(data=data)).data


def _instantiate(parser: Parser, config: Namespace) -> Namespace:
    try:
        return parser.instantiate(config)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"the configuration cannot be built ({type(error).__name__}: {error}); each part must be made from the shapes "
            "that it is given: see the class that is named in the message, or print the whole with --print_config"
        ) from error
