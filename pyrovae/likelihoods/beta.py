"""The beta likelihood of numbers between 0 and 1."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.open_beta import OpenBeta
from pyrovae.errors import InputError
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.networks import Shape


class Beta(Likelihood):
    r"""Independent numbers between 0 and 1, of mean :math:`m_i` and concentration :math:`\nu_i`.

    .. math::
        p(x \mid z) = \prod_i \frac{\Gamma(\nu_i)}{\Gamma(m_i \nu_i) \Gamma((1 - m_i) \nu_i)}
        x_i^{m_i \nu_i - 1} (1 - x_i)^{(1 - m_i) \nu_i - 1}, \qquad
        m = \frac{1}{1 + e^{-l}}, \quad \nu = \frac{\nu_0}{\log 2} \log(1 + e^{r}) + 10^{-3}

    The decoder gives :math:`l` and :math:`r`, of shape ``(2, *event_shape)``. 0 and 1 themselves are no such numbers, and
    refused: their density is 0 or infinite. Pictures that have them go with ``ContinuousBernoulli``.

    Args:
        event_shape: shape of one datum.
        concentration: :math:`\nu_0`, where the concentration begins.

    Raises:
        InputError: where it is not a finite positive number.

    References:
        | Beta Regression for Modelling Rates and Proportions (Ferrari & Cribari-Neto, 2004), equation 4
        | https://doi.org/10.1080/0266476042000214501
    """

    filler = 0.5

    def __init__(self, event_shape: Shape, concentration: float = 10.0) -> None:
        super().__init__(event_shape)
        if not concentration > 0.0 or math.isinf(concentration):
            raise InputError(f"concentration is {concentration}; expected a finite positive number")
        self.concentration = concentration

    @property
    def param_shape(self) -> Shape:
        return (2, *self.event_shape)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        logits, raw = params.unbind(-len(self.param_shape))
        concentration = self.concentration / math.log(2.0) * softplus(raw) + 1e-3
        least = torch.finfo(params.dtype).tiny
        alpha, beta = ((sign * logits).sigmoid() * concentration + least for sign in (1, -1))
        return OpenBeta(alpha, beta).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Compute the logit of the mean, at least 1 in 1,000 off both ends; the concentration starts at 0."""
        logits = mean.clamp(1e-3, 1 - 1e-3).logit()
        return torch.stack([logits, torch.zeros_like(logits)])
