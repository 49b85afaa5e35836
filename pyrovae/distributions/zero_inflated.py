"""The zero-inflated distribution of counts."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid


class ZeroInflated(TorchDistribution):
    r"""The zero-inflated distribution: 0 with probability :math:`\pi`, and else a count of another distribution.

    .. math::
        p(x) = \pi\, 1[x = 0] + (1 - \pi)\, p_0(x)

    Pyro's distribution of this kind turns its logits into probabilities once it was drawn from or asked for its mean, and
    has no finite density then where these round to 0.

    Args:
        counts: the distribution :math:`p_0` of single counts.
        gate_logits: the logits of :math:`\pi`, of the counts' batch shape.
    """

    arg_constraints = {"gate_logits": constraints.real}  # noqa: RUF012  # pyright: ignore

    def __init__(self, counts: Any, gate_logits: Tensor, validate_args: bool | None = None) -> None:
        self.counts = counts
        self.gate_logits = gate_logits
        super().__init__(gate_logits.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        return self.counts.support

    def expand(self, batch_shape: Size, _instance: None = None) -> "ZeroInflated":
        return ZeroInflated(self.counts.expand(batch_shape), self.gate_logits.expand(batch_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        counted = logsigmoid(-self.gate_logits) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.gate_logits), counted), counted)

    @property
    def mean(self) -> Tensor:
        r"""The mean, :math:`(1 - \pi)` times that of the counts."""
        return (-self.gate_logits).sigmoid() * self.counts.mean

    @property
    def variance(self) -> Tensor:
        r"""The variance, :math:`(1 - \pi) (v + m^2) - (1 - \pi)^2 m^2` for mean m and variance v of the counts."""
        return (-self.gate_logits).sigmoid() * (self.counts.variance + self.counts.mean.square()) - self.mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        counts = self.counts.sample(sample_shape)
        counted = torch.rand_like(counts) < (-self.gate_logits).sigmoid()
        return torch.where(counted, counts, torch.zeros_like(counts))
