"""The Poisson likelihood of counts."""

import pyro.distributions as dist
from torch import Tensor

from pyrovae.likelihoods.likelihood import Likelihood


class Poisson(Likelihood):
    r"""Independent counts, :math:`p(x \mid z) = \prod_i \lambda_i^{x_i} e^{-\lambda_i} / x_i!`.

    The decoder gives :math:`\log \lambda`, of shape ``event_shape``. The variance of a count is its mean; where data vary
    more, take :class:`~pyrovae.likelihoods.NegativeBinomial`.

    Args:
        event_shape: shape of one datum.
    """

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Poisson(params.exp()).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Compute the logarithm of the mean; a count that is always 0 starts at 1 in 1,000."""
        return mean.clamp_min(1e-3).log()
