"""The von Mises-Fisher prior on the sphere."""

import pyro
import torch
from torch import Tensor, nn

from pyrovae.distributions.sphere import VonMisesFisher as Distribution
from pyrovae.distributions.sphere import direction, require_sphere
from pyrovae.priors.prior import Prior


class VonMisesFisher(Prior):
    r"""The von Mises-Fisher prior: directions around a learned one.

    .. math::
        p(z) = \frac{\kappa^{d/2 - 1}}{(2 \pi)^{d/2} I_{d/2 - 1}(\kappa)}\, e^{\kappa \mu^\top z}, \qquad |z| = 1, \quad
        \mu = m / |m|, \quad \kappa = e^{c}

    on the site ``z``, per unit of the sphere's area. It goes with ``pyrovae.guides.VonMisesFisher``. At first
    :math:`\kappa = 1`; with :math:`\kappa = 0` it would be ``UniformSphere``.

    Args:
        latent_dim: the length d of z, at least 2.

    Raises:
        InputError: where ``latent_dim`` is 1.

    References:
        | Hyperspherical Variational Auto-Encoders (Davidson, Falorsi, De Cao, Kipf & Tomczak, 2018)
        | https://arxiv.org/abs/1804.00891
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        require_sphere(latent_dim)
        self.loc = nn.Parameter(torch.randn(latent_dim))
        self.log_concentration = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        return pyro.sample("z", Distribution(direction(self.loc), self.log_concentration.exp()))
