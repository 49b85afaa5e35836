"""Distributions of several runs of one program as one distribution, with the runs along a further, outermost, dimension.

Each is taken apart into a recipe (:mod:`pyrovae.engine.recipes`). Built anew from tensors that have the runs in front, it is
the distribution of all runs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyrovae.distributions.stacked import Stacked, stacked_shape
from pyrovae.engine.recipes import NO_BATCH, Leaf, NotLiftedError, Recipe, recipe


def lift(distributions: Sequence[Any], rank: int) -> Any:
    """The distributions of single runs as one, of batch shape ``(runs, ..., *batch_shape)``.

    Args:
        distributions: of the same family and shapes, one a run.
        rank: the number of dimensions of the batch after that of the runs.
    """
    try:
        recipes = [recipe(each) for each in distributions]
        _require_alike(recipes)
        recipes[0].require_known()
        values = (_stacked(run) for run in zip(*(each.leaves() for each in recipes), strict=True))
        lifted = recipes[0].lifted(values, len(recipes), rank)
    except Exception:  # whatever a class of a user's own does when it is built of other tensors
        return Stacked(distributions, rank)
    fits = lifted.batch_shape == stacked_shape(distributions, rank) and lifted.event_shape == distributions[0].event_shape
    return lifted if fits else Stacked(distributions, rank)


def _require_alike(recipes: Sequence[Recipe]) -> None:
    """Raise where runs have distributions of other families, or that differ in more than their tensors."""
    if any(_plain(each) != _plain(recipes[0]) for each in recipes):
        raise NotLiftedError("runs have distributions of other families")


def _plain(argument: Any) -> Any:
    """A recipe without its tensors, to be compared."""
    if isinstance(argument, Recipe):
        return argument.build, argument.batch_shape, {name: _plain(each) for name, each in argument.arguments.items()}
    if isinstance(argument, list):
        return [_plain(each) for each in argument]
    return ("leaf", argument.event_dim) if isinstance(argument, Leaf) else argument


def _stacked(leaves: Sequence[Leaf]) -> Tensor:
    """The values of all runs, or the one that they share."""
    values = [leaf.value for leaf in leaves]
    one = leaves[0].event_dim == NO_BATCH and all(torch.equal(value, values[0]) for value in values)
    shared = len(values) > 1 and all(value is values[0] for value in values)
    return values[0] if one or shared else torch.stack(values)
