"""The uniform prior on the sphere."""

import pyro
import torch
from torch import Tensor

from pyrovae.distributions.sphere import UniformSphere as Uniform
from pyrovae.distributions.sphere import require_sphere
from pyrovae.priors.prior import Prior


class UniformSphere(Prior):
    r"""The uniform prior on the sphere, of the hyperspherical VAE.

    .. math::
        p(z) = \frac{\Gamma(d / 2)}{2 \pi^{d / 2}}, \qquad |z| = 1

    on the site ``z``, per unit of the sphere's area. It goes with ``pyrovae.guides.VonMisesFisher``. Nothing draws z to an
    origin, and d numbers are d - 1 dimensions.

    Args:
        latent_dim: the length d of z, at least 2.

    Raises:
        InputError: where ``latent_dim`` is 1.

    References:
        | Hyperspherical Variational Auto-Encoders (Davidson, Falorsi, De Cao, Kipf & Tomczak, 2018)
        | https://arxiv.org/abs/1804.00891
    """

    pole: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        require_sphere(latent_dim)
        self.register_buffer("pole", torch.eye(latent_dim)[0], persistent=False)

    def forward(self) -> Tensor:
        return pyro.sample("z", Uniform(self.pole))
