"""The Gaussian proposal with independent dimensions."""

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.guides.guide import Guide
from pyrovae.networks import Shape


class DiagonalNormal(Guide):
    r"""The Gaussian proposal with independent dimensions.

    .. math::
        q(z \mid x) = \prod_d N(z_d; \mu_d(x), \sigma_d(x)^2), \qquad \sigma = \log(1 + e^{s}) + 10^{-6},

    where :math:`(\mu, s)` is the encoder's output, of shape ``(2, latent_dim)``; on the site ``z``.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), equation 9
        | https://arxiv.org/abs/1312.6114
    """

    @property
    def param_shape(self) -> Shape:
        return (2, self.latent_dim)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        loc, raw_scale = params.unbind(-2)
        return dist.Normal(loc, softplus(raw_scale) + 1e-6).to_event(1)
