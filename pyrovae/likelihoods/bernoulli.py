"""The Bernoulli likelihood of binary data."""

import pyro.distributions as dist
from torch import Tensor

from pyrovae.likelihoods.likelihood import Likelihood


class Bernoulli(Likelihood):
    r"""Independent binary pixels, :math:`p(x \mid z) = \prod_i \pi_i^{x_i} (1 - \pi_i)^{1 - x_i}`.

    The decoder gives the logits of :math:`\pi`, of shape ``event_shape``. The data must be 0 or 1.

    Args:
        event_shape: shape of one datum.
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=params).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Compute the logit of the mean; pixels that are always on or off start at 1 in 1,000."""
        return mean.clamp(1e-3, 1 - 1e-3).logit()
