r"""Exact expectations over the draws of several particles, by Gauss-Hermite quadrature, differentiable in all parameters.

For a :class:`~programs.LinearGaussian` with a single latent and a diagonal :class:`~programs.GaussianGuide`, written out
from the densities: nothing of the library is used.
"""

from collections.abc import Callable

import numpy as np
import pyro.distributions as dist
import torch
from programs import GaussianGuide, LinearGaussian
from torch import Tensor

NODES = {1: 120, 2: 60, 3: 40, 4: 22}
"""In each dimension, by the number of particles."""


class Grid:
    r"""Nodes :math:`z_k` of all particles with their probabilities under the guide.

    Attributes:
        probability: shape ``(n,)``.
        z: shape ``(K, n)``, a function of the guide's parameters.
    """

    def __init__(self, model: LinearGaussian, guide: GaussianGuide, x: Tensor, particles: int) -> None:
        nodes, probability = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(NODES[particles]))
        self.model, self.guide, self.x = model, guide, x
        self.noise = torch.cartesian_prod(*[nodes] * particles).reshape(-1, particles).T
        self.probability = (
            torch.cartesian_prod(*[probability / probability.sum()] * particles).reshape(-1, particles).prod(1)
        )
        loc, scale = self.moments()
        self.z = loc + scale * self.noise

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and scale of the guide."""
        return (self.x @ self.guide.slope.T + self.guide.offset)[0, 0], self.guide.factor[0, 0]

    def joint(self, z: Tensor) -> Tensor:
        """``log p(x, z)``."""
        likelihood = dist.Normal(self.model.mean(z[..., None]), self.model.noise).log_prob(self.x).sum(-1)
        return dist.Normal(0.0, 1.0).log_prob(z) + likelihood

    def proposal(self, z: Tensor, stopped: bool = False) -> Tensor:
        """``log q(z | x)``, with its parameters stopped if asked for."""
        loc, scale = self.moments()
        return dist.Normal(*((loc.detach(), scale.detach()) if stopped else (loc, scale))).log_prob(z)

    def log_weights(self, stopped: bool = False) -> Tensor:
        """Shape ``(K, n)``."""
        return self.joint(self.z) - self.proposal(self.z, stopped)

    def mean(self, values: Tensor) -> Tensor:
        """The expectation of values at the nodes, shape ``(n,)``."""
        return (self.probability * values).sum()


def exact(
    model: LinearGaussian, guide: GaussianGuide, x: Tensor, particles: int, bound: Callable[[Tensor], Tensor]
) -> Tensor:
    """The expectation of a function of the log weights, ``(K, n) -> (n,)``."""
    grid = Grid(model, guide, x, particles)
    return grid.mean(bound(grid.log_weights()))
