"""The zero-inflated negative binomial likelihood of counts."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions.zero_inflated import ZeroInflated
from pyrovae.likelihoods.negative_binomial import NegativeBinomial
from pyrovae.networks import Shape


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Independent counts, each 0 with a probability :math:`\pi_i`, and else negative binomial.

    .. math::
        p(x \mid z) = \prod_i \left[ \pi_i\, 1[x_i = 0] + (1 - \pi_i)\, NB(x_i; \mu_i, \theta_i) \right]

    The decoder gives :math:`\log \mu` and the logits of :math:`\pi`, of shape ``(2, *event_shape)``; :math:`\theta` and,
    with ``library``, the mean are as in ``NegativeBinomial``.

    Args:
        event_shape: shape of one datum.
        inverse_dispersion: where :math:`\theta` begins.
        library: whether the last number of the context is the logarithm of the datum's total count.

    Raises:
        InputError: where ``inverse_dispersion`` is not a finite positive number; without a context, where ``library`` needs
            one.

    References:
        | Deep generative modeling for single-cell transcriptomics (Lopez, Regier, Cole, Jordan & Yosef, 2018)
        | https://doi.org/10.1038/s41592-018-0229-2
    """

    @property
    def param_shape(self) -> Shape:
        return (2, *self.event_shape)

    def given(self, params: Tensor, context: Tensor | None) -> dist.TorchDistribution:
        log_mean, gate_logits = params.unbind(-len(self.param_shape))
        counts = self.counts(self.log_mean(log_mean, context))
        return ZeroInflated(counts, gate_logits).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Compute the logarithm of the mean over 0.9, and the logit of a tenth of extra zeros."""
        return torch.stack([super().start(mean / 0.9), torch.full_like(mean, -math.log(9.0))])
