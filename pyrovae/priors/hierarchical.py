"""The prior of several stochastic layers."""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.errors import InputError
from pyrovae.networks import MLP, Build
from pyrovae.priors.prior import Prior


class Hierarchical(Prior):
    r"""Stochastic layers, each Gaussian given the one above; the lowest is what the decoder sees.

    .. math::
        p(z_1, \dots, z_n) = N(z_n; 0, I) \prod_{i=1}^{n-1} N(z_i; \mu_i(z_{i+1}), \sigma_i(z_{i+1})^2), \qquad
        \sigma = \log(1 + e^{s}) + 10^{-6},

    where :math:`(\mu_i, s_i)` is the output of a network, of shape ``(2, d_i)``. The sites are ``z`` (:math:`z_1`), ``z2``,
    ``z3`` and so on; a guide has to draw all of them, as ``pyrovae.guides.Hierarchical`` with the same ``upper`` does.

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
        if not upper or min(upper) < 1:
            raise InputError(f"upper is {tuple(upper)}; expected the lengths of one or more layers, each at least 1")
        self.upper = tuple(upper)
        self.networks = nn.ModuleList(network((above,), (2, below)) for below, above in pairwise([latent_dim, *upper]))
        self.register_buffer("loc", torch.zeros(upper[-1]), persistent=False)
        self.register_buffer("scale", torch.ones(upper[-1]), persistent=False)

    def forward(self) -> Tensor:
        """Draw every layer, from the highest down; returns the lowest."""
        layers = len(self.upper) + 1
        z = pyro.sample(f"z{layers}", dist.Normal(self.loc, self.scale).to_event(1))
        for layer in range(layers - 1, 0, -1):
            loc, raw_scale = self.networks[layer - 1](z).unbind(-2)
            z = pyro.sample(f"z{layer}" if layer > 1 else "z", dist.Normal(loc, softplus(raw_scale) + 1e-6).to_event(1))
        return z
