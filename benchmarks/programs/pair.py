"""What the programs have in common: their sizes, and the arithmetic that all of them by hand need."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.networks import mlp
from benchmarks.task import latent_dim

pixels, latent, hidden = 784, latent_dim, (200, 200)
half_log_two_pi = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class Pair:
    """A model and a guide as a user of Pyro writes them, and their mathematics by hand over the same networks.

    Args:
        model: a Pyro program that observes a batch of shape ``(B, 784)``.
        guide: its guide.
        by_hand: minus the evidence lower bound of a batch, from one draw a datum, summed over the data, in nats.
        networks: all modules that these run.
    """

    model: Callable[[Tensor], Any]
    guide: Callable[[Tensor], Any]
    by_hand: Callable[[Tensor], Tensor]
    networks: nn.ModuleList


class NormalNetwork(nn.Module):
    """A network whose output is the location and the scale of a normal distribution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.network = mlp(inputs, *hidden, 2 * outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale, each of shape ``(..., outputs)``."""
        loc, raw = self.network(x).chunk(2, -1)
        return loc, softplus(raw) + 1e-6


def log_standard_normal(z: Tensor) -> Tensor:
    """The log density of standard normal vectors, summed over the last dimension."""
    return (-0.5 * z**2 - half_log_two_pi).sum(-1)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """The log probability of binary vectors, summed over the last dimension."""
    return -binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
