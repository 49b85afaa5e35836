"""The importance-weighted bound with VIMCO's gradient, for guides that cannot be reparameterised."""

import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.objectives.power_mean import PowerMean


class VIMCO(PowerMean):
    r"""The importance-weighted bound with VIMCO's gradient, for guides that cannot be reparameterised.

    The bound is IWAE's. Its gradient is that of the score function with a baseline for each particle, made of the others:

    .. math::
        \sum_k \big( \hat{\mathcal L} - \hat{\mathcal L}_{-k} \big)\, \partial_\varphi \log q(z_k \mid x)
        + \sum_k \tilde w_k\, \partial \log w_k, \qquad
        \hat{\mathcal L}_{-k} = \log \frac1K \Big( \sum_{j \ne k} w_j + \exp \frac1{K - 1} \sum_{j \ne k} \log w_j \Big)

    with normalised weights :math:`\tilde w`. No gradient flows through the draws, be they discrete or not; shape
    ``(K, B) -> (B,)``, in nats. The baselines of a step are made of an array of shape ``(K, K, B)``.

    Args:
        num_particles: the number K of draws a datum, at least 2.

    Raises:
        InputError: for fewer than two particles; for a site with a scale of its own.

    References:
        | Variational Inference for Monte Carlo Objectives (Mnih & Rezende, 2016)
        | https://arxiv.org/abs/1602.06725
    """

    def __init__(self, num_particles: int = 5) -> None:
        if num_particles == 1:
            raise InputError("num_particles is 1; VIMCO needs at least 2, since the baseline of each is made of the others")
        super().__init__(1, num_particles, "score_function")

    @property
    def power(self) -> float:
        return 1.0

    def signals(self, log_weights: Tensor) -> Tensor:
        """Compute the bound minus what it would be with a particle's weight replaced by the geometric mean of the others."""
        number = len(log_weights)
        mine = torch.eye(number, dtype=torch.bool, device=log_weights.device)[..., None]
        others = log_weights[:, None].masked_fill(mine, 0.0)  # the second dimension says which is left out
        geometric = others.sum(0) / (number - 1)
        without = self.value(torch.where(mine, geometric, others))
        return self.value(log_weights) - without.masked_fill(without == -torch.inf, 0.0)  # where all others are impossible
