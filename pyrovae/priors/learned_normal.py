"""The normal prior with a learned place and width."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.priors.prior import Prior


class LearnedNormal(Prior):
    r"""A normal prior whose location and scale are learned, a pair for each dimension.

    .. math::
        p(z) = \prod_d N(z_d; \mu_d, \sigma_d^2), \qquad \mu = 0,\; \sigma = 1 \text{ at first}

    on the site ``z``. A decoder and guide that begin with linear layers can do the same to z themselves; it serves where the
    guide's scale is fixed or the prior's parameters are of interest.

    Args:
        latent_dim: length of z.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> Tensor:
        return pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))
