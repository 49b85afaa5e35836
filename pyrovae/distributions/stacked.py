"""The stack of the distributions of single runs of a program."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence, register_kl


class Stacked(TorchDistribution):
    """The stack of the distributions of single runs along a further, outermost, dimension of the batch.

    Args:
        parts: of the same family and shapes, one a run.
        rank: the number of dimensions of the batch after that of the runs.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, parts: Sequence[Any], rank: int) -> None:
        self.parts, self._rank = parts, rank
        super().__init__(stacked_shape(parts, rank), parts[0].event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """The support, which is that of each."""
        return self.parts[0].support

    @property
    def has_rsample(self) -> bool:
        """Whether every distribution can be reparameterised."""
        return self.parts[0].has_rsample

    @property
    def mean(self) -> Tensor:
        """The mean of each."""
        return self.stack([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        """The variance of each."""
        return self.stack([part.variance for part in self.parts])

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw from each, reparameterised."""
        return self._draws([part.rsample(sample_shape) for part in self.parts], len(sample_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw from each."""
        return self._draws([part.sample(sample_shape) for part in self.parts], len(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density of each at its value."""
        shape = self.batch_shape + self.event_shape
        inner = self.parts[0].batch_shape + self.event_shape
        rows = value.expand(torch.broadcast_shapes(value.shape, shape)).reshape(len(self.parts), *inner)
        return self.stack([part.log_prob(row) for part, row in zip(self.parts, rows, strict=True)])

    def entropy(self) -> Tensor:
        """Compute the entropy of each, in nats."""
        return self.stack([part.entropy() for part in self.parts])

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Stacked":
        """Return itself, for its own shape."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise NotImplementedError("distributions of single runs cannot be expanded")
        return self

    def stack(self, values: Sequence[Tensor]) -> Tensor:
        """Stack a tensor of each distribution, of which the batch comes first, with all dimensions of the batch."""
        stacked = torch.stack([*values])
        return stacked.reshape(len(values), *[1] * (self._rank - len(self.parts[0].batch_shape)), *stacked.shape[1:])

    def _draws(self, values: Sequence[Tensor], sample_dims: int) -> Tensor:
        stacked = torch.stack([*values], sample_dims)
        sample_shape, rest = stacked.shape[:sample_dims], stacked.shape[sample_dims + 1 :]
        pad = [1] * (self._rank - len(self.parts[0].batch_shape))
        return stacked.reshape(*sample_shape, len(values), *pad, *rest)


def stacked_shape(parts: Sequence[Any], rank: int) -> torch.Size:
    """Compute the common batch shape, ``(runs, ..., *batch_shape)``, with ``rank`` dimensions after the first."""
    batch_shape = parts[0].batch_shape
    return torch.Size((len(parts), *[1] * (rank - len(batch_shape)), *batch_shape))


@register_kl(Stacked, Stacked)
def _kl(q: Stacked, p: Stacked) -> Tensor:
    return q.stack([kl_divergence(*parts) for parts in zip(q.parts, p.parts, strict=True)])
