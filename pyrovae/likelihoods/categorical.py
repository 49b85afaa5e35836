"""The categorical likelihood of grey levels."""

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions.integer_categorical import Levels
from pyrovae.errors import InputError
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.networks import Shape


class Categorical(Likelihood):
    r"""Independent pixels of levels :math:`0, \dots, L - 1`, :math:`p(x \mid z) = \prod_i \pi_{x_i i}`.

    The decoder gives the logits of :math:`\pi`, of shape ``(levels, *event_shape)``. Levels are nominal to it: that 7
    is near 8 it has to learn.

    Args:
        event_shape: shape of one datum.
        levels: the number :math:`L` of levels.

    Raises:
        InputError: for less than two levels.
    """

    def __init__(self, event_shape: Shape, levels: int = 256) -> None:
        super().__init__(event_shape)
        if levels < 2:
            raise InputError(f"levels is {levels}; expected at least 2")
        self.levels = levels

    @property
    def param_shape(self) -> Shape:
        return (self.levels, *self.event_shape)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        logits = params.movedim(-len(self.param_shape), -1)
        return Levels(logits=logits).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Compute the log probabilities of the binomial distribution of this mean, at least 1 in 1,000 off both ends."""
        top = self.levels - 1
        level = torch.arange(self.levels, dtype=mean.dtype, device=mean.device).reshape(-1, *[1] * mean.dim())
        share = mean.clamp(1e-3, top - 1e-3) / top
        ways = -torch.lgamma(level + 1) - torch.lgamma(top - level + 1)
        return ways + level * share.log() + (top - level) * torch.log1p(-share)
