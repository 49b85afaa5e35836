"""The proposal of several stochastic layers, from the data up."""

from collections.abc import Sequence
from itertools import pairwise

import pyro
from torch import Tensor, nn

from pyrovae.distributions.layers import require_layers, site
from pyrovae.guides.diagonal_normal import DiagonalNormal
from pyrovae.networks import MLP, Build, Shape


class Hierarchical(DiagonalNormal):
    r"""The bottom-up proposal of several stochastic layers, each Gaussian given the one below.

    .. math::
        q(z_1, \dots, z_n \mid x) = N(z_1; \mu_1(x), \sigma_1(x)^2)
        \prod_{i=2}^{n} N(z_i; \mu_i(z_{i-1}), \sigma_i(z_{i-1})^2), \qquad \sigma = \log(1 + e^{s}) + 10^{-6},

    where :math:`(\mu_1, s_1)` is the encoder's output, of shape ``(2, latent_dim)``, and the others are those of a network a
    layer. The sites are ``z`` (:math:`z_1`), ``z2``, ``z3`` and so on, those of ``pyrovae.priors.Hierarchical``.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of the lowest layer.
        encoder: builds the lowest layer's network from its input and output shapes.
        upper: the lengths of the layers above it, from below.
        network: builds each upper layer's network from its input and output shapes.

    Raises:
        InputError: where there is no layer above, or one without dimensions.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 2 and table 1
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(
        self,
        event_shape: Shape,
        latent_dim: int,
        encoder: Build,
        upper: Sequence[int] = (10,),
        network: Build = MLP,
    ) -> None:
        super().__init__(event_shape, latent_dim, encoder)
        require_layers(upper)
        self.networks = nn.ModuleList(network((below,), (2, above)) for below, above in pairwise([latent_dim, *upper]))

    def draw(self, params: Tensor) -> Tensor:
        """Draw every layer, from the lowest up; returns the lowest."""
        lowest = z = super().draw(params)
        for layer, network in enumerate(self.networks, start=1):
            z = pyro.sample(site(layer), self.proposal(network(z)))
        return lowest
