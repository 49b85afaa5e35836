"""The Laplace prior, with exponential tails."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.priors.prior import Prior


class Laplace(Prior):
    r"""The Laplace prior: independent dimensions of unit variance, which prefer sparse z.

    .. math::
        p(z) = \prod_d \frac{1}{2b} e^{-|z_d| / b}, \qquad b = 1 / \sqrt 2

    on the site ``z``. Its density does not have a derivative at 0, which no draw hits.

    Args:
        latent_dim: length of z.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.full((latent_dim,), 0.5**0.5), persistent=False)

    def forward(self) -> Tensor:
        return pyro.sample("z", dist.Laplace(self.loc, self.scale).to_event(1))
