"""The logistic distribution, rounded to levels."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid


class LevelsOfUnitInterval(constraints.Constraint):
    r"""The numbers :math:`k / (L - 1)` for :math:`k = 0, \dots, L - 1`, up to rounding (a thousandth of a step)."""

    is_discrete = True
    event_dim = 0

    def __init__(self, levels: int) -> None:
        self.levels = levels
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        steps = value * (self.levels - 1)
        return (value >= 0) & (value <= 1) & ((steps - steps.round()).abs() < 1e-3)

    def __repr__(self) -> str:
        return f"k / {self.levels - 1} for k = 0, ..., {self.levels - 1}"


class DiscretizedLogistic(dist.TorchDistribution):
    r"""A logistic variable, rounded to the nearest of :math:`L` levels between 0 and 1.

    .. math::
        p(x) = F\left(\frac{x + h - \mu}{s}\right) - F\left(\frac{x - h - \mu}{s}\right), \qquad
        F(t) = \frac{1}{1 + e^{-t}}, \quad h = \frac{1}{2 (L - 1)},

    where the lowest level has all the mass below it, and the highest all above. With :math:`a < b` for the two arguments,
    :math:`F(b) - F(a) = F(b)\, F(-a)\, (1 - e^{a - b})`, whose logarithm is right however far out.

    Args:
        loc: :math:`\mu`.
        scale: :math:`s`, positive, of a shape that broadcasts against it.
        levels: :math:`L`.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012  # pyright: ignore

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        return LevelsOfUnitInterval(self.levels)

    def expand(self, batch_shape: Size, _instance: None = None) -> "DiscretizedLogistic":
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.levels - 1)
        below = logsigmoid((value + half - self.loc) / self.scale)
        above = logsigmoid((self.loc - value + half) / self.scale)
        between = below + above + torch.log(-torch.expm1(-2 * half / self.scale))
        return torch.where(value < half, below, torch.where(value > 1 - half, above, between))

    @property
    def mean(self) -> Tensor:
        r"""The mean, :math:`\frac{1}{L - 1} \sum_{k=0}^{L-2} P(x > k / (L - 1))`."""
        levels = torch.arange(self.levels - 1, dtype=self.loc.dtype, device=self.loc.device)
        edges = (levels + 0.5) / (self.levels - 1)
        return torch.sigmoid((self.loc[..., None] - edges) / self.scale[..., None]).mean(-1)

    @property
    def variance(self) -> Tensor:
        """The variance, by the sum over all levels."""
        levels = torch.arange(self.levels, dtype=self.loc.dtype, device=self.loc.device) / (self.levels - 1)
        each = DiscretizedLogistic(self.loc[..., None], self.scale[..., None], self.levels, validate_args=False)
        return (each.log_prob(levels).exp() * (levels - self.mean[..., None]).square()).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + self.scale * torch.logit(uniform)
        return (x * (self.levels - 1)).round().clamp(0, self.levels - 1) / (self.levels - 1)


class DiscretizedLogisticMixture(dist.MixtureSameFamily):
    """A mixture of :class:`DiscretizedLogistic` distributions; its support is theirs."""

    @property
    def support(self) -> Any:
        return self.component_distribution.support
