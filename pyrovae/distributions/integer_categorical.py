"""The categorical distribution over the numbers 0, 1, ..., L - 1."""

import pyro.distributions as dist
import torch
from torch import Size, Tensor


class Levels(dist.Categorical):
    r"""A categorical distribution over the numbers :math:`0, \dots, L - 1`, which has a mean; draws are of the logits' type.

    Args:
        logits: log weights of shape ``(*batch, L)``.
    """

    @property
    def mean(self) -> Tensor:
        r"""The mean, :math:`\sum_l l\, \pi_l`."""
        levels = torch.arange(self.logits.shape[-1], dtype=self.logits.dtype, device=self.logits.device)
        return (self.probs * levels).sum(-1)

    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        return super().sample(sample_shape).to(self.logits.dtype)
