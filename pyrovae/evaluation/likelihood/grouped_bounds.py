r"""Bounds at several numbers of particles, each the mean over disjoint groups of the same draws."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.objectives import CUBO, ELBO, EUBO, IWAE, Renyi


class Bound(Protocol):
    """A bound that is a function of log weights, as ``ELBO``, ``IWAE``, ``CUBO`` and others are."""

    num_particles: int
    sign: int

    def value(self, log_weights: Tensor, /) -> Tensor:
        """Compute the bound, shape ``(num_particles, B) -> (B,)``, in nats."""
        ...


MakesBound = Callable[[int], Any]
"""A function from K to a :class:`Bound` of K particles, which may need more draws than that."""

BOUNDS: Mapping[str, MakesBound] = {
    "ELBO": ELBO,
    "Renyi(0.5)": partial(Renyi, 0.5),
    "IWAE": IWAE,
    "EUBO": EUBO,
    "CUBO(2)": partial(CUBO, 2.0),
}
"""Three bounds that are below log p(x) at every K, and two that are above in the limit of large K."""


class GroupedBounds(NamedTuple):
    """Bounds of one batch of data.

    Attributes:
        values: shape ``(bounds, K, B)``, in nats.
        errors: their Monte Carlo standard errors, of the same shape; NaN where the draws make a single group.
        num_groups: the number of groups that each is the mean of, shape ``(bounds, K)``.
        estimate: of log p(x), from all draws.
    """

    values: Tensor
    errors: Tensor
    num_groups: Tensor
    estimate: LogLikelihood


def make_bounds(particles: Sequence[int], bounds: Mapping[str, MakesBound]) -> dict[str, list[Bound]]:
    """Make the bounds at each K, by name.

    Raises:
        InputError: for no bound, no number of particles or one below 1, and for a bound that is no function of log weights.
    """
    if not bounds:
        raise InputError('bounds is empty; expected some, by name: {"IWAE": pyrovae.IWAE}')
    if not particles or min(particles) < 1:
        raise InputError(f"particles is {tuple(particles)}; expected numbers of at least 1, and one of them or more")
    made = {name: [make(count) for count in particles] for name, make in bounds.items()}
    for name, bound in ((name, bound) for name, those in made.items() for bound in those):
        if not all(hasattr(bound, member) for member in ("value", "num_particles", "sign")):
            raise InputError(
                f"bound {name!r} is {bound!r}, which is no function of log weights (value, num_particles, sign); pass "
                "what makes one for K particles, such as pyrovae.IWAE or partial(pyrovae.objectives.CIWAE, 0.5)"
            )
    return made


def require_draws(made: Mapping[str, Sequence[Bound]], num_samples: int | None) -> int:
    """Return a number of draws that is enough for every bound: twice what the largest needs where none is asked for.

    Raises:
        InputError: for fewer than the largest needs.
    """
    name, most = max(((n, b.num_particles) for n, those in made.items() for b in those), key=lambda needs: needs[1])
    if num_samples is None:
        return 2 * most
    if num_samples < most:
        raise InputError(f"bound {name!r} needs {most:,} draws and num_samples is {num_samples:,}; pass at least {most}")
    return num_samples


def grouped_bounds(log_weights: Tensor, made: Mapping[str, Sequence[Bound]]) -> GroupedBounds:
    """Compute bounds from log weights of shape ``(S, B)``.

    Raises:
        InputError: for a bound that is not a number.
    """
    values, errors, numbers = [], [], []
    for name, bound in ((name, bound) for name, those in made.items() for bound in those):
        groups = _groups(bound, log_weights)
        _require_numbers(name, bound, groups)
        values.append(groups.mean(0))
        errors.append(groups.std(0) / math.sqrt(len(groups)) if len(groups) > 1 else torch.full_like(groups[0], math.nan))
        numbers.append(len(groups))
    shape = len(made), -1, log_weights.shape[1]
    return GroupedBounds(
        torch.stack(values).reshape(shape).cpu(),
        torch.stack(errors).reshape(shape).cpu(),
        torch.tensor(numbers).reshape(shape[:2]),
        LogLikelihood.from_log_weights(log_weights),
    )


def _groups(bound: Bound, log_weights: Tensor) -> Tensor:
    """Compute the bound of each disjoint group of draws, shape ``(groups, B)``."""
    groups = len(log_weights) // bound.num_particles
    grouped = log_weights[: groups * bound.num_particles].unflatten(0, (groups, bound.num_particles))
    return bound.value(grouped.transpose(0, 1).flatten(1)).unflatten(0, (groups, -1))


def _require_numbers(name: str, bound: Bound, values: Tensor) -> None:
    if values.isnan().any():
        number = int(values.isnan().any(0).sum())
        raise InputError(
            f"bound {name!r} of {bound.num_particles:,} draws is NaN for {number} of {values.shape[1]} data; where "
            "weights are zero not every bound has a value: leave it out of bounds"
        )
