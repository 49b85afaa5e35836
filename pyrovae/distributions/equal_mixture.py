"""The equally weighted mixture of a batch of distributions of any kind."""

from math import log

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints


class EqualMixture(TorchDistribution):
    r"""The equally weighted mixture of all distributions of a batch.

    .. math::
        p(z) = \frac{1}{C} \sum_{c=1}^{C} p_c(z)

    Unlike torch's ``MixtureSameFamily`` it asks of them no support, no moments and no ``expand``, which flows lack.

    Args:
        components: distributions of batch shape ``(C,)``.
        batch_shape: how many independent draws it makes.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore

    def __init__(self, components: TorchDistribution, batch_shape: Size = Size()) -> None:  # noqa: B008
        self.components = components
        super().__init__(batch_shape, components.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return self.components.support  # pyright: ignore

    def expand(self, batch_shape: Size, _instance: None = None) -> "EqualMixture":
        return EqualMixture(self.components, Size(batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        """Draw from all components, and keep one of each draw, as a flow cannot draw from one alone."""
        shape = self._extended_shape(sample_shape)
        number = Size(shape[: len(shape) - self.event_dim]).numel()
        each = self.components(Size((number,)))
        chosen = torch.randint(each.shape[1], (number,), device=each.device)
        return each[torch.arange(number, device=each.device), chosen].reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.components.log_prob(value.unsqueeze(-1 - self.event_dim))
        return (each.logsumexp(-1) - log(each.shape[-1])).expand(torch.broadcast_shapes(each.shape[:-1], self.batch_shape))
