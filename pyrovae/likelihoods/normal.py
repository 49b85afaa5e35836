"""The normal likelihood of real-valued data."""

import pyro.distributions as dist
from torch import Tensor

from pyrovae.likelihoods.location_scale import LocationScale


class Normal(LocationScale):
    r"""Independent Gaussian pixels, :math:`p(x \mid z) = \prod_i N(x_i; \mu_i, \sigma_i^2)`, with every constant.

    The scale is fixed, or one learned for all pixels, or given by the decoder: see ``learned``.

    Args:
        event_shape: shape of one datum.
        scale: the scale, or where it begins.
        learned: ``fixed``: :math:`\sigma_i` = ``scale``, and the decoder gives :math:`\mu`, of shape ``event_shape``;
            ``shared``: one :math:`\sigma` for all pixels, learned; ``pixel``: the decoder gives :math:`\mu` and
            :math:`s`, of shape ``(2, *event_shape)``, and :math:`\sigma_i = \log(1 + e^{s_i}) + 10^{-3}`.

    Raises:
        InputError: for a scale that is not positive, and for another word than these three.

    References:
        | Simple and Effective VAE Training with Calibrated Decoders (Rybkin, Daniilidis & Levine, 2021)
        | https://arxiv.org/abs/2006.13202
    """

    def around(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.Normal(loc, scale)
