"""The continuous Bernoulli likelihood of grey values between 0 and 1."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions import continuous_bernoulli
from pyrovae.likelihoods.likelihood import Likelihood


class ContinuousBernoulli(Likelihood):
    r"""Independent grey pixels in [0, 1], with the constant that the Bernoulli density lacks there.

    .. math::
        p(x \mid z) = \prod_i \frac{\eta_i}{e^{\eta_i} - 1} e^{\eta_i x_i}

    The decoder gives the logits :math:`\eta`, of shape ``event_shape``. The mean of a pixel is not :math:`\sigma(\eta)`.

    Args:
        event_shape: shape of one datum.

    References:
        | The continuous Bernoulli: fixing a pervasive error in variational autoencoders (Loaiza-Ganem & Cunningham, 2019)
        | https://arxiv.org/abs/1907.06845
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return continuous_bernoulli.ContinuousBernoulli(params).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Find the logits of this mean by bisection; a pixel that is always 0 or 1 starts 0.005 off."""
        low, high = torch.full_like(mean, -200.0), torch.full_like(mean, 200.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = continuous_bernoulli.ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2
