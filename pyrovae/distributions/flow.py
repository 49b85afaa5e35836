"""The normalizing flows of zuko as distributions of Pyro."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import pyro
from pyro.distributions import constraints

from pyrovae.errors import InputError

with pyro.validation_enabled():  # zuko turns the validation of all of torch's distributions off as it is imported
    import zuko
    from pyro.contrib.zuko import ZukoToPyro

Kind = Literal["maf", "nsf"]

_families: dict[str, Callable[..., Any]] = {"maf": zuko.flows.MAF, "nsf": zuko.flows.NSF}


def family(kind: Kind) -> Callable[..., Any]:
    """Find the flow of this name; raise an InputError where there is none."""
    if kind not in _families:
        raise InputError(f"kind is {kind!r}; expected one of {', '.join(map(repr, get_args(Kind)))}")
    return _families[kind]


def require_transforms(transforms: int, without: str) -> None:
    """Raise an InputError for a flow of no transform; ``without`` says what stands for it."""
    if transforms < 1:
        raise InputError(f"transforms is {transforms}; expected at least 1: {without} without one")


class FlowDistribution(ZukoToPyro):
    """The distribution of vectors that a flow of zuko makes, with its event dimension stated."""

    support = constraints.real_vector  # pyright: ignore

    def expand(self, *args: Any, **kwargs: Any) -> "FlowDistribution":
        return FlowDistribution(self.dist.expand(*args, **kwargs))
