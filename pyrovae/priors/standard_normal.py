"""The isotropic prior."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.priors.prior import Prior


class StandardNormal(Prior):
    r"""The isotropic prior :math:`p(z) = N(z; 0, I)`, on the site ``z``.

    Args:
        latent_dim: length of z.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self) -> Tensor:
        return pyro.sample("z", dist.Normal(self.loc, self.scale).to_event(1))
