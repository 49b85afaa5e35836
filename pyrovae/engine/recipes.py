"""Distributions taken apart into recipes, from which they can be built anew of other tensors.

A recipe is a distribution's class, and the tensors that it was built from, each with its number of event dimensions.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MixtureSameFamily, TransformedDistribution
from torch.distributions.transforms import AffineTransform, Transform

from pyrovae.internals.pyro_internals import mask_of
from pyrovae.internals.torch_internals import held_by_transform

NO_BATCH = -1
KNOWN = ("torch", "pyro", "pyrovae")
"""Packages whose distributions keep what they were built from under the names of their arguments."""
EXCLUSIVE = (
    ("scale_tril", "covariance_matrix", "precision_matrix"),
    ("logits", "probs"),
    ("gate_logits", "gate"),
)
"""Arguments of which a distribution takes one; the first is the one that its density is computed from."""


class NotLiftedError(Exception):
    """A distribution cannot be taken apart; the message says which."""


class Leaf(NamedTuple):
    """A tensor that a distribution was built from, and how many of its last dimensions are of an event.

    With ``NO_BATCH`` in the place of these it is one number, such as a temperature, which all runs must share.
    """

    value: Tensor
    event_dim: int


@dataclass(frozen=True)
class Recipe:
    """How to build a distribution.

    Attributes:
        build: what is called with the arguments by name.
        arguments: leaves, recipes, lists of them, and whatever needs no change.
        batch_shape: of the distribution in one run; ``None`` for a part of a distribution, such as a transform.
    """

    build: Callable[..., Any]
    arguments: dict[str, Any]
    batch_shape: torch.Size | None

    def require_known(self) -> None:
        """Raise where a class is a user's own: it may keep something else under the names that it was built from."""
        if str(getattr(self.build, "__module__", "")).partition(".")[0] not in KNOWN:
            raise NotLiftedError(f"{self.build} is not known to be built from what it keeps")
        for argument in self.arguments.values():
            if isinstance(argument, Recipe):
                argument.require_known()

    def leaves(self) -> Iterator[Leaf]:
        """The leaves in their order."""
        for argument in self.arguments.values():
            yield from _leaves(argument)

    def lifted(self, values: Iterator[Tensor], runs: int, rank: int) -> Any:
        """The distribution of all runs, whose batch has ``rank`` dimensions after that of the runs.

        Args:
            values: for each leaf the values of all runs, ``(runs, *shape)``, or ``shape`` where they share one.
            runs: how many there are.
            rank: the number of dimensions.
        """
        deeper = 0 if self.batch_shape is None else len(self.batch_shape)
        built = self.build(
            **{name: _lifted(argument, values, runs, rank - deeper) for name, argument in self.arguments.items()}
        )
        if self.batch_shape is None:
            return built
        shape = (runs, *[1] * (rank - deeper), *self.batch_shape)
        return built if built.batch_shape == shape else built.expand(torch.Size(shape))


def _leaves(argument: Any) -> Iterator[Leaf]:
    if isinstance(argument, Leaf):
        yield argument
    elif isinstance(argument, Recipe):
        yield from argument.leaves()
    elif isinstance(argument, list):
        for each in argument:
            yield from _leaves(each)


def _lifted(argument: Any, values: Iterator[Tensor], runs: int, pad: int) -> Any:
    """An argument for all runs; its batch is ``pad`` dimensions deeper than in one run."""
    if isinstance(argument, Leaf):
        return _aligned(next(values), argument, pad)
    if isinstance(argument, Recipe):
        return argument.lifted(values, runs, pad + len(argument.batch_shape or ()))
    if isinstance(argument, list):
        return [_lifted(each, values, runs, pad) for each in argument]
    return argument


def _aligned(value: Tensor, leaf: Leaf, pad: int) -> Tensor:
    """The values of all runs, with dimensions of size 1 where the leaf has fewer than the distribution."""
    if value.dim() == leaf.value.dim():
        return value
    if leaf.event_dim == NO_BATCH:
        raise NotLiftedError("a distribution has a number that differs from run to run")
    return value.reshape(len(value), *[1] * pad, *value.shape[1:])


def recipe(distribution: Any) -> Recipe:
    """Take a distribution apart.

    Raises:
        NotLiftedError: where its class does not say what it was built from.
    """
    rank = len(distribution.batch_shape)
    arguments = {name: _full(value, rank) for name, value in _arguments(distribution).items()}
    return Recipe(type(distribution), arguments, distribution.batch_shape)


def _full(argument: Any, rank: int) -> Any:
    """A leaf with as many dimensions as the whole batch has, so that one more can be put in front of all."""
    if not isinstance(argument, Leaf) or argument.event_dim == NO_BATCH:
        return argument
    missing = rank + argument.event_dim - argument.value.dim()
    return Leaf(argument.value[(None,) * missing], argument.event_dim) if missing > 0 else argument


def _arguments(distribution: Any) -> dict[str, Any]:
    if isinstance(distribution, Independent):
        base = recipe(distribution.base_dist)
        return {"base_distribution": base, "reinterpreted_batch_ndims": distribution.reinterpreted_batch_ndims}
    if isinstance(distribution, ExpandedDistribution):
        raise NotLiftedError("an expanded distribution has no arguments of its own")
    if isinstance(distribution, dist.MaskedDistribution):
        return {"base_dist": recipe(distribution.base_dist), "mask": _leaf(mask_of(distribution), 0)}
    if isinstance(distribution, dist.Delta):
        event_dim = distribution.event_dim
        leaves = {"v": Leaf(distribution.v, event_dim), "log_density": _leaf(distribution.log_density, 0)}
        return {**leaves, "event_dim": event_dim}
    if isinstance(distribution, MixtureSameFamily):
        names = "mixture_distribution", "component_distribution"
        return {name: recipe(getattr(distribution, name)) for name in names}
    if type(distribution) in (TransformedDistribution, dist.TransformedDistribution):
        transforms = [_transform(each, distribution) for each in distribution.transforms]
        return {"base_distribution": recipe(distribution.base_dist), "transforms": transforms}
    return _of_signature(distribution)


def _of_signature(distribution: Any) -> dict[str, Any]:
    """What a distribution was built from, where it keeps the arguments of its constructor under their names."""
    parameters = dict(inspect.signature(type(distribution)).parameters)
    parameters.pop("validate_args", None)
    for names in EXCLUSIVE:
        kept = next((name for name in names if name in vars(distribution)), names[0])
        for name in names if kept in parameters else ():
            parameters.pop(name if name != kept else "", None)
    found = {}
    for name, parameter in parameters.items():
        if name in vars(distribution) or hasattr(type(distribution), name):
            found[name] = _argument(distribution, name)
        elif parameter.default is inspect.Parameter.empty:
            raise NotLiftedError(f"{type(distribution).__name__} does not keep what it was built from")
    return found


def _argument(distribution: Any, name: str) -> Any:
    value = getattr(distribution, name)
    if isinstance(value, Distribution):
        return recipe(value)
    if isinstance(value, Tensor):
        return Leaf(value, _event_dim(distribution, name, value))
    if value is None or isinstance(value, int | float | str):
        return value
    raise NotLiftedError(f"{type(distribution).__name__} was built from a {type(value).__name__}")


def _event_dim(distribution: Any, name: str, value: Tensor) -> int:
    """How many dimensions of an argument are of an event, as the distribution's constraints say."""
    try:
        return distribution.arg_constraints[name].event_dim
    except (KeyError, NotImplementedError) as error:
        if value.dim() == 0:
            return NO_BATCH
        raise NotLiftedError(f"{type(distribution).__name__} does not say what shape its {name} has") from error


def _leaf(value: Any, event_dim: int) -> Any:
    return Leaf(value, event_dim) if isinstance(value, Tensor) else value


def _transform(transform: Transform, distribution: Distribution) -> Any:
    """A transform that holds no tensor of a run: none at all, parameters, or those of an affine one."""
    if isinstance(transform, AffineTransform):
        rank, event_dim = len(distribution.batch_shape), len(distribution.event_shape)
        shift = {name: _full(_leaf(getattr(transform, name), event_dim), rank) for name in ("loc", "scale")}
        return Recipe(type(transform), {**shift, "event_dim": transform.event_dim}, None)
    holds_tensors = any(isinstance(value, _MAY_HOLD) for value in held_by_transform(transform))
    if isinstance(transform, nn.Module) or not holds_tensors:
        return transform
    raise NotLiftedError(f"the transform {type(transform).__name__} does not say what it was built from")


_MAY_HOLD = (Tensor, Transform, Distribution, list, tuple, dict)
