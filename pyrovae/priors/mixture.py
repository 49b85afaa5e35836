"""The mixture of Gaussians."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.priors.prior import Prior


class Mixture(Prior):
    r"""A learned mixture of normal distributions with independent dimensions.

    .. math::
        p(z) = \sum_{c=1}^{C} \pi_c \prod_d N(z_d; \mu_{cd}, \sigma_{cd}^2)

    on the site ``z``. It begins with equal weights, unit scales and locations drawn from N(0, I).

    Args:
        latent_dim: length of z.
        components: the number :math:`C` of normal distributions.

    Raises:
        InputError: for less than one component.

    References:
        | VAE with a VampPrior (Tomczak & Welling, 2018), section 2, which compares it
        | https://arxiv.org/abs/1705.07120
    """

    def __init__(self, latent_dim: int, components: int = 10) -> None:
        super().__init__(latent_dim)
        if components < 1:
            raise InputError(f"components is {components}; expected at least 1")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self) -> Tensor:
        components = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=self.logits), components))
