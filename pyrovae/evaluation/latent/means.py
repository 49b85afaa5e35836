"""The mean of a distribution, where it is known, and the mean of draws."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from pyrovae.engine.plates import Plates
from pyrovae.engine.sites import Site


def mean(distribution: Distribution) -> Tensor | None:
    """Return the mean in closed form, of shape ``batch_shape + event_shape``; ``None`` where the distribution has none.

    A categorical distribution over the numbers 0, 1, ... has the mean of those numbers.
    """
    base = _unwrapped(distribution)
    try:
        values = _categorical_mean(base) if isinstance(base, Categorical) else distribution.mean
    except NotImplementedError:
        return None
    return values if bool(values.isfinite().all()) else None


def _unwrapped(distribution: Any) -> Distribution:
    """Strip wrappers that do not change the mean: more event dimensions, an expanded batch, a mask."""
    while type(distribution).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        distribution = distribution.base_dist
    return distribution


def _categorical_mean(distribution: Categorical) -> Tensor:
    numbers = torch.arange(distribution.probs.shape[-1], device=distribution.probs.device)
    return (distribution.probs * numbers).sum(-1)


def mean_of_draws(values: Tensor, site: Site, plates: Plates) -> Tensor:
    """Average a site's values, of shape ``(draws, ..., B, *event_shape)``, over draws, and put the data's dimension first.

    Returns:
        Shape ``(B, 1, ..., *event_shape)``, where the dots are the other plates, the outermost (of lowest ``dim``) first.
    """
    values = values if values.is_floating_point() else values.float()
    return draws_first(values, site, plates).mean(0)


def draws_first(values: Tensor, site: Site, plates: Plates) -> Tensor:
    """Move a site's values, of shape ``(draws, ..., B, *event_shape)``, to ``(draws, B, 1, ..., *event_shape)``."""
    frame = next(frame for frame in site["cond_indep_stack"] if frame.name == plates.data)
    draws, data = -1 - plates.nesting - site["fn"].event_dim, frame.dim - site["fn"].event_dim
    return values.unsqueeze(draws).movedim((draws - 1, data), (0, 1))
