"""The binomial likelihood of counts out of a known number."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.networks import Shape


class Binomial(Likelihood):
    r"""Independent counts of successes, :math:`p(x \mid z) = \prod_i \binom{n}{x_i} \pi_i^{x_i} (1 - \pi_i)^{n - x_i}`.

    The decoder gives the logits of :math:`\pi`, of shape ``event_shape``.

    Args:
        event_shape: shape of one datum.
        total_count: the number :math:`n` of trials, of each pixel.

    Raises:
        InputError: for less than one trial.
    """

    total_count: Tensor

    def __init__(self, event_shape: Shape, total_count: int = 255) -> None:
        super().__init__(event_shape)
        if total_count < 1:
            raise InputError(f"total_count is {total_count}; expected at least 1")
        self.register_buffer("total_count", torch.tensor(float(total_count)), persistent=False)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        return dist.Binomial(self.total_count, logits=params).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Compute the logit of the mean's share; a count that is always 0 or :math:`n` starts 1 in 1,000 away from it."""
        successes = mean.clamp_min(1e-3).minimum(self.total_count - 1e-3)
        return successes.log() - (self.total_count - successes).log()
