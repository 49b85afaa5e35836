"""The negative binomial likelihood of overdispersed counts."""

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
    is learned, and the same for all z. With ``library`` it gives the logits of shares :math:`\rho`, which sum to one over a
    datum, and :math:`\mu_i = \ell \rho_i`, where :math:`\log \ell`, the logarithm of the datum's total count, is the last
    number of its context.

    Args:
        event_shape: shape of one datum.
        inverse_dispersion: where :math:`\theta` begins.
        library: whether the context says how much was counted.

    Raises:
        InputError: where ``inverse_dispersion`` is not a finite positive number; without a context, where ``library`` needs
            one.

    References:
        | Deep generative modeling for single-cell transcriptomics (Lopez, Regier, Cole, Jordan & Yosef, 2018)
        | https://doi.org/10.1038/s41592-018-0229-2
    """

    def __init__(self, event_shape: Shape, inverse_dispersion: float = 1.0, library: bool = False) -> None:
        super().__init__(event_shape)
        if not inverse_dispersion > 0.0 or math.isinf(inverse_dispersion):
            raise InputError(f"inverse_dispersion is {inverse_dispersion}; expected a finite positive number")
        self.log_inverse_dispersion = nn.Parameter(torch.full(self.event_shape, math.log(inverse_dispersion)))
        self.library = library

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return self.given(params, None)

    def given(self, params: Tensor, context: Tensor | None) -> dist.TorchDistribution:
        """Return the distribution of x given a context too, whose last number is the logarithm of the total count."""
        return self.counts(self.log_mean(params, context)).to_event(len(self.event_shape))

    def log_mean(self, params: Tensor, context: Tensor | None) -> Tensor:
        r"""Compute :math:`\log \mu`, of the shape of ``params``."""
        if not self.library:
            return params
        if context is None:
            raise InputError(
                f"{type(self).__name__} with library=True takes the logarithm of each datum's total count from its context, "
                "and none was given; build VAE(..., context_shape=(1,)) and pass c=x.sum(1, keepdim=True).log()"
            )
        inner = len(self.event_shape)
        shares = params.flatten(-inner).log_softmax(-1)
        return (shares + context[..., -1:].to(params.dtype)).unflatten(-1, self.event_shape)

    def counts(self, log_mean: Tensor) -> dist.TorchDistribution:
        """Return the distribution of each count."""
        return dist.NegativeBinomial(self.log_inverse_dispersion.exp(), logits=log_mean - self.log_inverse_dispersion)

    def start(self, mean: Tensor) -> Tensor:
        """Compute the logarithm of the mean; a count that is always 0 starts at 1 in 1,000."""
        return mean.clamp_min(1e-3).log()
