"""Pairs as users hand them over: a ``VAE``, or a tuple of two Pyro programs."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from pyrovae.errors import InputError
from pyrovae.runtime.parameters import Program

P = ParamSpec("P")
R = TypeVar("R")


class HasPrograms(Protocol):
    """Whatever has a model and a guide, a ``VAE`` say."""

    @property
    def model(self) -> Any:
        """The generator, a Pyro program."""
        ...

    @property
    def guide(self) -> Any:
        """Its proposal, a Pyro program with the same latent sites."""
        ...


PairLike = HasPrograms | tuple[Program, Program]
"""A ``VAE``, or whatever else has a ``model`` and a ``guide``, or the tuple ``(model, guide)``."""
REMEDY = "hand the model and its guide over as one, a VAE or the tuple (model, guide)"


def programs(pair: Any, name: str = "pair", expected: str = "a pair") -> tuple[Program, Program]:
    """The model and the guide of a pair.

    Args:
        pair: a ``VAE``, or whatever else has a ``model`` and a ``guide``, or the tuple ``(model, guide)``.
        name: what an error calls it.
        expected: what else an error says may be there.

    Raises:
        InputError: for anything else.
    """
    is_tuple = isinstance(pair, tuple) and len(pair) == 2
    model, guide = pair if is_tuple else (getattr(pair, "model", None), getattr(pair, "guide", None))
    if not (callable(model) and callable(guide)):
        raise InputError(f"{name} is {_described(pair)}; expected {expected}: {REMEDY}")
    return model, guide


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(each).__name__ for each in value)}"
    kind = getattr(value, "__name__", type(value).__name__)
    return f"{kind}, one program alone" if callable(value) else f"of type {kind}"


def takes_pair(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function whose first argument is a pair refuse a model and a guide as two arguments, and say the remedy."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if args:
            programs(args[0])
        elif given := {"model", "guide"} & kwargs.keys():
            raise InputError(f"{function.__name__} has no argument {min(given)!r}; {REMEDY}")
        return function(*args, **kwargs)

    return call
