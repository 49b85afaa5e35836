"""The prior of several stochastic layers."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.distributions.layers import require_layers, site
from pyrovae.networks import MLP, Build
from pyrovae.priors.prior import Prior

Conditional = Callable[[Tensor], tuple[Tensor, Tensor]]


class Hierarchical(Prior):
    r"""The prior of several stochastic layers, each Gaussian given the one above; the decoder sees the lowest.

    .. math::
        p(z_1, \dots, z_n) = N(z_n; 0, I) \prod_{i=1}^{n-1} N(z_i; \mu_i(z_{i+1}), \sigma_i(z_{i+1})^2), \qquad
        \sigma = \log(1 + e^{s}) + 10^{-6},

    where :math:`(\mu_i, s_i)` is the output of a network, of shape ``(2, d_i)``. The sites are ``z`` (:math:`z_1`), ``z2``,
    ``z3`` and so on; a guide has to draw all of them, as ``pyrovae.guides.Hierarchical`` and ``pyrovae.guides.Ladder`` with
    the same ``upper`` do.

    Args:
        latent_dim: length of the lowest layer.
        upper: the lengths of the layers above it, from below.
        network: builds each layer's network from its input and output shapes.

    Raises:
        InputError: where there is no layer above, or one without dimensions.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 2 and table 1
        | https://arxiv.org/abs/1509.00519
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int, upper: Sequence[int] = (10,), network: Build = MLP) -> None:
        super().__init__(latent_dim)
        require_layers(upper)
        self.lengths = (latent_dim, *upper)
        self.networks = nn.ModuleList(network((above,), (2, below)) for below, above in pairwise(self.lengths))
        self.register_buffer("loc", torch.zeros(upper[-1]), persistent=False)
        self.register_buffer("scale", torch.ones(upper[-1]), persistent=False)

    def conditionals(self) -> list[Conditional]:
        """List functions from a layer to location and scale of the one below, from the lowest up."""
        return [partial(_moments, network) for network in self.networks]

    def forward(self) -> Tensor:
        """Draw every layer, from the highest down; returns the lowest."""
        conditionals = self.conditionals()
        z = pyro.sample(site(len(conditionals)), dist.Normal(self.loc, self.scale).to_event(1))
        for layer in reversed(range(len(conditionals))):
            z = pyro.sample(site(layer), dist.Normal(*conditionals[layer](z)).to_event(1))
        return z


def _moments(network: nn.Module, above: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw_scale = network(above).unbind(-2)
    return loc, softplus(raw_scale) + 1e-6
