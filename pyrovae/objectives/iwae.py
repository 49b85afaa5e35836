"""The importance-weighted bound."""

import math

from torch import Tensor

from pyrovae.objectives.objective import Objective
from pyrovae.weights import LogWeights


class IWAE(Objective):
    r"""The importance-weighted bound.

    .. math::
        \mathcal L_K(x) = E_{z_1, \dots, z_K \sim q(z \mid x)} \Big[ \log \frac1K \sum_{k=1}^K w_k \Big],
        \qquad \mathcal L_1 \le \mathcal L_K \le \mathcal L_{K+1} \le \log p(x)

    estimated by one draw of the bracket, the log-mean-exp over particles of :math:`\log w`, shape ``(K, B) -> (B,)``, in
    nats, for each datum by itself.

    Args:
        num_particles: the number :math:`K` of draws a datum; more of them tighten the bound.

    Raises:
        InputError: in training, for a guide that cannot be reparameterised; for a site with a scale of its own.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), equation 8
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(self, num_particles: int = 5) -> None:
        super().__init__(num_particles)

    def check(self, weights: LogWeights) -> None:
        super().check(weights)
        weights.require_densities("IWAE")

    def bound(self, weights: LogWeights) -> Tensor:
        """The log of the mean weight of each datum."""
        return weights.total.logsumexp(0) - math.log(self.num_particles)
