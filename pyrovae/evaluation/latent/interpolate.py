"""Interpolation between data in latent space."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError
from pyrovae.evaluation.latent.decode import decode, latent_site
from pyrovae.evaluation.latent.posterior_means import posterior_means
from pyrovae.evaluation.latent.traverse import repeated, require_points
from pyrovae.runtime.batches import Batch, DataLike, as_batch
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.seeds import seeded

Course = Literal["straight", "great_circle"]


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Paths between the posterior means of pairs of data, as tensors where the programs are.

    Attributes:
        latents: shape ``(P, steps, D)``.
        means: the means of the observed site there, shape ``(P, steps, *event_shape)``.
        shares: how far each step is on the way, from 0 to 1, shape ``(steps,)``.
    """

    latents: Tensor
    means: Tensor
    shares: Tensor


@takes_pair
def interpolate(
    pair: PairLike,
    start: DataLike,
    end: DataLike,
    *,
    course: Course = "straight",
    steps: int = 9,
    num_samples: int = 1000,
    seed: int = 0,
) -> Interpolation:
    r"""Interpolate between the posterior means of data, and decode the points of each path.

    .. math::
        z_t = (1 - t)\, z_0 + t\, z_1 \qquad\text{(straight), or, on a great circle,}\qquad
        z_t = r_t \frac{\sin((1 - t)\, \omega)\, u_0 + \sin(t \omega)\, u_1}{\sin \omega}, \quad
        r_t = (1 - t) \|z_0\| + t \|z_1\|, \quad \cos \omega = u_0 \cdot u_1,

    with :math:`u = z / \|z\|`. In many dimensions the draws of a standard normal prior all have norms near
    :math:`\sqrt D`, and the straight way between two of them leads through shorter ones, of which the decoder has seen none;
    the great circle keeps to those norms. For a prior that is not the same in all directions it has no such meaning.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model has one latent site, a
            vector a datum, and one observed site.
        start: where P paths begin, data of shape ``(P, *event_shape)``, or a mapping that has them under ``x``.
        end: where they end, as many; what is given beside the data is to be the same as at the start.
        course: ``straight`` or ``great_circle``.
        steps: the number of points on a path, with both ends.
        num_samples: the number of draws to average where the posterior mean is not exact.
        seed: where the noise starts; the caller's random generators stay as they were.

    Returns:
        :class:`Interpolation`; ``plots.interpolations`` draws it.

    Raises:
        InputError: where starts and ends do not match; for less than two steps; on a great circle, for ends in opposite
            directions; and for models and paths that :func:`traverse` refuses.

    References:
        | Sampling Generative Networks (White, 2016)
        | https://arxiv.org/abs/1609.04468
    """
    model, guide = programs(pair)
    first, last = as_batch(start), as_batch(end)
    _require_match(first, last)
    if course not in ("straight", "great_circle"):
        raise InputError(f"course is {course!r}; expected 'straight' or 'great_circle'")
    require_points(steps, num_samples)
    module = Pair(model, guide)
    with torch.no_grad(), evaluating(model, guide), seeded(seed, first.x.device):
        module.meet(first)
        latent_site(module.weigh(1, first.x, **first.given))
        ends = [
            posterior_means((model, guide), batch.plain(), num_samples=num_samples, seed=seed).to(first.x.device)
            for batch in (first, last)
        ]
        shares = torch.linspace(0.0, 1.0, steps, dtype=ends[0].dtype, device=ends[0].device)
        path = straight if course == "straight" else great_circle
        latents = path(ends[0][:, None], ends[1][:, None], shares[:, None])
        means = decode(module, repeated(first, steps), latents.flatten(0, 1))
    return Interpolation(latents, means.unflatten(0, (len(first), steps)), shares)


def straight(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Interpolate on a line, for ends of shape ``(..., D)`` and shares of the way of shape ``(..., 1)``."""
    return (1.0 - share) * start + share * end


def great_circle(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Interpolate angle and norm, for ends of shape ``(..., D)`` and shares of the way of shape ``(..., 1)``.

    Raises:
        InputError: for ends in opposite directions, between which there are many great circles.
    """
    norms = [point.norm(dim=-1, keepdim=True) for point in (start, end)]
    units = [point / norm.clamp(min=torch.finfo(norm.dtype).tiny) for point, norm in zip((start, end), norms, strict=True)]
    cosine = (units[0] * units[1]).sum(-1, keepdim=True)
    if bool((cosine < -1.0 + 1e-6).any()):
        raise InputError(
            "two ends lie in opposite directions, between which no great circle is the shortest (in one dimension there is "
            "none at all); take course='straight'"
        )
    angle = cosine.clamp(-1.0, 1.0).acos()
    arc = (((1.0 - share) * angle).sin() * units[0] + (share * angle).sin() * units[1]) / angle.sin()
    along = torch.where(angle < 1e-4, straight(units[0], units[1], share), arc)  # where the sines are lost in rounding
    return straight(norms[0], norms[1], share) * along


def _require_match(first: Batch, last: Batch) -> None:
    if first.x.shape != last.x.shape:
        raise InputError(f"start has shape {tuple(first.x.shape)} and end {tuple(last.x.shape)}; expected the same of both")
    if first.given.keys() != last.given.keys():
        raise InputError(f"start has {sorted(first.given)} beside x and end {sorted(last.given)}; expected the same of both")
    for name, value in first.given.items():
        if not torch.equal(value, last.given[name]):
            raise InputError(f"{name!r} is not the same at start and end; a path leads through latents alone: give both one")
