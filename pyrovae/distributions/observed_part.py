"""The density of a partly observed datum."""

import torch
from pyro.distributions import Independent, TorchDistribution
from torch import Tensor

from pyrovae.errors import InputError


def observed_part(distribution: TorchDistribution, mask: Tensor) -> TorchDistribution:
    r"""Restrict the density of a distribution to the observed numbers.

    .. math::
        p(x_\text{observed}) = \prod_{i:\, m_i = 1} p(x_i)

    for a distribution of independent numbers, of which those that were not observed integrate to one.

    Args:
        distribution: of event shape ``event_shape``.
        mask: bool, shape ``(*batch, *event_shape)``, true where a number was observed.

    Raises:
        InputError: for a distribution whose numbers are not independent.
    """
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if base.event_dim:
        raise InputError(
            f"a mask was given, and under {type(base).__name__} the numbers of one datum are not independent, so that some "
            "of them have no density of their own here; take a likelihood of independent numbers"
        )
    return base.mask(mask).to_event(distribution.event_dim)


def require_mask(mask: Tensor, x: Tensor) -> None:
    """Raise an InputError where a mask cannot be that of the data."""
    if mask.dtype != torch.bool or mask.shape != x.shape:
        raise InputError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; expected torch.bool of the shape of x, {tuple(x.shape)}, "
            "true where a number was observed"
        )
