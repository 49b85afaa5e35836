"""Counts that vary more than their mean says."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.networks import Shape


class NegativeBinomial(Likelihood):
    r"""Independent counts of mean :math:`\mu_i` and variance :math:`\mu_i + \mu_i^2 / \theta_i`.

    .. math::
        p(x \mid z) = \prod_i \frac{\Gamma(x_i + \theta_i)}{\Gamma(\theta_i)\, x_i!}
        \left( \frac{\theta_i}{\theta_i + \mu_i} \right)^{\theta_i} \left( \frac{\mu_i}{\theta_i + \mu_i} \right)^{x_i}

    The decoder gives :math:`\log \mu`, of shape ``event_shape``; the inverse dispersion :math:`\theta`, of the same shape,
    is learned, and the same for all z.

    Args:
        event_shape: shape of one datum.
        inverse_dispersion: where :math:`\theta` begins.

    Raises:
        InputError: where it is not a finite positive number.

    References:
        | Deep generative modeling for single-cell transcriptomics (Lopez, Regier, Cole, Jordan & Yosef, 2018)
        | https://doi.org/10.1038/s41592-018-0229-2
    """

    def __init__(self, event_shape: Shape, inverse_dispersion: float = 1.0) -> None:
        super().__init__(event_shape)
        if not inverse_dispersion > 0.0 or math.isinf(inverse_dispersion):
            raise InputError(f"inverse_dispersion is {inverse_dispersion}; expected a finite positive number")
        self.log_inverse_dispersion = nn.Parameter(torch.full(self.event_shape, math.log(inverse_dispersion)))

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        logits = params - self.log_inverse_dispersion
        counts = dist.NegativeBinomial(self.log_inverse_dispersion.exp(), logits=logits)
        return counts.to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """The logarithm of the mean; a count that is always 0 starts at 1 in 1,000."""
        return mean.clamp_min(1e-3).log()
