"""The von Mises-Fisher proposal on the sphere."""

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.sphere import VonMisesFisher as Distribution
from pyrovae.distributions.sphere import direction, require_sphere
from pyrovae.guides.guide import Guide
from pyrovae.networks import Build, Shape


class VonMisesFisher(Guide):
    r"""The von Mises-Fisher proposal: directions around one that the encoder gives.

    .. math::
        q(z \mid x) = \frac{\kappa^{d/2 - 1}}{(2 \pi)^{d/2} I_{d/2 - 1}(\kappa)}\, e^{\kappa \mu^\top z}, \qquad |z| = 1,
        \quad \mu = m / |m|, \quad \kappa = \log(1 + e^{s}),

    where :math:`(m, s)` is the encoder's output, of shape ``(latent_dim + 1,)``; on the site ``z``, per unit of the sphere's
    area. It goes with the priors on the sphere, ``UniformSphere``, with which its KL is a formula, and ``VonMisesFisher``.
    Its draws need no rejection (:mod:`pyrovae.distributions.sphere`).

    Args:
        event_shape: shape of one datum.
        latent_dim: the length d of z, at least 2.
        encoder: builds the network from its input and output shapes.

    Raises:
        InputError: where ``latent_dim`` is 1.

    References:
        | Hyperspherical Variational Auto-Encoders (Davidson, Falorsi, De Cao, Kipf & Tomczak, 2018)
        | https://arxiv.org/abs/1804.00891
    """

    def __init__(self, event_shape: Shape, latent_dim: int, encoder: Build) -> None:
        require_sphere(latent_dim)
        super().__init__(event_shape, latent_dim, encoder)

    @property
    def param_shape(self) -> Shape:
        return (self.latent_dim + 1,)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        return Distribution(direction(params[..., :-1]), softplus(params[..., -1]))
