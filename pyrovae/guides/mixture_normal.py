"""The mixture proposal, of Gaussians with independent dimensions."""

import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.diagonal_normal_mixture import DiagonalNormalMixture
from pyrovae.errors import InputError
from pyrovae.guides.guide import Guide
from pyrovae.networks import Build, Shape


class MixtureNormal(Guide):
    r"""The mixture proposal, of Gaussians with independent dimensions.

    .. math::
        q(z \mid x) = \sum_{c=1}^C \pi_c(x) \prod_d N(z_d; \mu_{cd}(x), \sigma_{cd}(x)^2), \qquad
        \pi = \operatorname{softmax}(l), \quad \sigma = \log(1 + e^{s}) + 10^{-6},

    where each row :math:`(l_c, \mu_c, s_c)` of the encoder's output, of shape ``(components, 1 + 2 * latent_dim)``, is a
    component; on the site ``z``. Every objective takes it; :class:`pyrovae.objectives.SIWAE` draws each component as often,
    where the others leave it to chance. A draw carries the gradient of the weights :math:`\pi`, too
    (:mod:`pyrovae.distributions.diagonal_normal_mixture`).

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.
        components: the number C of modes.

    Raises:
        InputError: where there is no component.

    References:
        | Stochastic Backpropagation through Mixture Density Distributions (Graves, 2016)
        | https://arxiv.org/abs/1607.05690
        | Implicit Reparameterization Gradients (Figurnov, Mohamed & Mnih, 2018)
        | https://arxiv.org/abs/1805.08498
    """

    def __init__(self, event_shape: Shape, latent_dim: int, encoder: Build, components: int = 4) -> None:
        if components < 1:
            raise InputError(f"components is {components}; expected at least 1")
        self.components = components
        super().__init__(event_shape, latent_dim, encoder)

    @property
    def param_shape(self) -> Shape:
        return (self.components, 1 + 2 * self.latent_dim)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        logits, loc, raw_scale = params.split([1, self.latent_dim, self.latent_dim], dim=-1)
        components = dist.Normal(loc, softplus(raw_scale) + 1e-6).to_event(1)
        return DiagonalNormalMixture(dist.Categorical(logits=logits[..., 0]), components)
