"""Latent traversals: one dimension of the latent moves, the others are held."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.latent.decode import decode, latent_site
from pyrovae.evaluation.latent.posterior_means import posterior_means
from pyrovae.runtime.batches import Batch, DataLike, as_batch
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.seeds import seeded

Over = Literal["prior", "posterior"]
DEVIATIONS = 3.0
"""Standard deviations that a traversal goes to either side."""


@dataclass(frozen=True, eq=False)
class Traversal:
    """Paths along dimensions of the latent, as tensors where the programs are.

    Attributes:
        latents: shape ``(len(dimensions), steps, D)``.
        means: the means of the observed site there, shape ``(len(dimensions), steps, *event_shape)``.
        dimensions: which dimensions, counted from 0.
        levels: where on the path each step is, shape ``(steps,)``: quantiles of the prior, from 0 to 1, or standard
            deviations of the posterior from its mean.
        over: which of the two.
    """

    latents: Tensor
    means: Tensor
    dimensions: tuple[int, ...]
    levels: Tensor
    over: Over


@takes_pair
def traverse(
    pair: PairLike,
    x: DataLike,
    *,
    over: Over = "prior",
    steps: int = 9,
    dimensions: Sequence[int] | None = None,
    num_samples: int = 10_000,
    seed: int = 0,
) -> Traversal:
    r"""Move one dimension of a datum's latent at a time, and decode the points of each path.

    .. math::
        z^{(d, t)} = E_{q(z \mid x)}[z] \text{ but for } z_d^{(d, t)} = F_d^{-1}(u_t) \quad\text{or}\quad
        E_q[z_d] + a_t\, \mathrm{sd}_q(z_d)

    with levels :math:`u_t` at equal distances of the normal's quantiles from -3 to 3, :math:`u_t = \Phi(a_t)`, so that for a
    standard normal prior the values are at equal distances themselves. :math:`F_d^{-1}` is the quantile function of
    the prior's dimension where it has one, and else that of draws of the prior.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model has one latent site, a
            vector a datum, and one observed site.
        x: one datum, shape ``(1, *event_shape)``, or a mapping that has it under ``x``.
        over: ``prior``, over all values that the prior has; ``posterior``, over those that this datum leaves.
        steps: the number of values; of an odd number, the middle is the median, or the posterior mean.
        dimensions: which dimensions to move, counted from 0; by default all.
        num_samples: the number of draws, where quantiles, or the posterior's mean and standard deviation, are theirs.
        seed: where the noise starts; the caller's random generators stay as they were.

    Returns:
        :class:`Traversal`; ``plots.traversals`` draws it.

    Raises:
        InputError: for another number of data, for a dimension that does not exist, for less than two steps; for a model of
            several latent sites, or with one that is discrete or no vector (but numbers in a plate of their own); where the
            path leaves the support of the prior; for a model without exactly one observed site that knows its mean.
    """
    model, guide = programs(pair)
    batch = as_batch(x)
    if len(batch) != 1:
        raise InputError(f"x has {len(batch)} data; expected one, to begin from: pass x[:1]")
    if over not in ("prior", "posterior"):
        raise InputError(f"over is {over!r}; expected 'prior' or 'posterior'")
    require_points(steps, num_samples)
    module = Pair(model, guide)
    with torch.no_grad(), evaluating(model, guide), seeded(seed, batch.x.device):
        module.meet(batch)
        name = latent_site(module.weigh(1, batch.x, **batch.given))["name"]
        mean = posterior_means((model, guide), batch.plain(), num_samples=num_samples, seed=seed).to(batch.x.device)[0]
        deviations = torch.linspace(-DEVIATIONS, DEVIATIONS, steps, dtype=mean.dtype, device=mean.device)
        levels = deviations if over == "posterior" else torch.special.ndtr(deviations)
        with module.opened() as opened:
            call = Call(*opened, (batch.x,), batch.given, num_samples, module.plates)
            values = _of_posterior(call, name, mean, levels) if over == "posterior" else _quantiles(call, name, levels)
        moved = _require_dimensions(dimensions, len(mean))
        latents = mean.repeat(len(moved), steps, 1)
        for row, dimension in zip(latents, moved, strict=True):
            row[:, dimension] = values[:, dimension]
        means = decode(module, repeated(batch, len(moved) * steps), latents.flatten(0, 1))
    return Traversal(latents, means.unflatten(0, (len(moved), steps)), moved, levels, over)


def require_points(steps: int, num_samples: int) -> None:
    """Raise an InputError for a path of fewer than two points, or of no draws to average."""
    require_positive(num_samples=num_samples)
    if steps < 2:
        raise InputError(f"steps is {steps}; expected at least 2")


def repeated(batch: Batch, times: int) -> Batch:
    """Repeat each datum, its copies next to one another."""
    return batch.with_tensors(*(value.repeat_interleave(times, 0) for value in batch.tensors))


def _require_dimensions(dimensions: Sequence[int] | None, number: int) -> tuple[int, ...]:
    moved = tuple(range(number) if dimensions is None else dimensions)
    for dimension in moved:
        if not 0 <= dimension < number:
            raise InputError(f"dimension {dimension} does not exist; expected 0 to {number - 1}")
    if not moved:
        raise InputError("dimensions is empty; expected at least one, or None for all")
    return moved


def _of_posterior(call: Call, name: str, mean: Tensor, levels: Tensor) -> Tensor:
    """Compute values of each dimension, shape ``(steps, D)``; the standard deviation is exact where it is known."""
    site: Site = call.draw().nodes[name]
    try:
        deviation = site["fn"].stddev.flatten(0, -2)[0]
    except NotImplementedError:
        deviation = site["value"].flatten(0, -2).std(0)
    return mean + levels[:, None] * deviation


def _quantiles(call: Call, name: str, levels: Tensor) -> Tensor:
    """Compute quantiles of each dimension of the prior, shape ``(steps, D)``: of the distribution, or of draws."""
    one: Site = replace(call, particles=1).unguided().nodes[name]
    exact = _exact_quantiles(base_distribution(one["fn"]), levels)
    if exact is not None:
        return exact
    pieces = [min(MAX_ROWS, call.particles - start) for start in range(0, call.particles, MAX_ROWS)]
    sites: list[Site] = [replace(call, particles=number).unguided().nodes[name] for number in pieces]
    return torch.cat([site["value"] for site in sites]).flatten(0, -2).quantile(levels, 0)


def _exact_quantiles(base: Distribution, levels: Tensor) -> Tensor | None:
    """Compute the quantiles of a distribution of scalars that has a quantile function; None for another."""
    if base.event_shape:
        return None
    try:
        return torch.stack([base.icdf(level).flatten(0, -2)[0] for level in levels])
    except NotImplementedError:  # torch's way to have none
        return None
