r"""Power means of importance weights, of which most bounds are made."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import Estimator, normalized_powers
from pyrovae.objectives.weight_bound import WeightBound

_SMALL = 1e-2
"""Power below which the result is computed as a correction to the mean of the logarithms, lest rounding swallow it."""


def log_power_mean(log_weights: Tensor, power: float) -> Tensor:
    r"""Compute :math:`\frac1\gamma \log \frac1K \sum_k w_k^\gamma` along the first axis; the mean of :math:`\log w` at 0."""
    mean = log_weights.mean(0)
    if power == 0.0:
        return mean
    result = ((power * log_weights).logsumexp(0) - math.log(len(log_weights))) / power
    if abs(power) >= _SMALL:
        return result
    scaled = power * (log_weights - mean)
    near = scaled.abs().amax(0) < 1.0  # else there is nothing to swallow
    return torch.where(near, mean + scaled.where(near, 0.0).expm1().mean(0).log1p() / power, result)


class PowerMean(WeightBound):
    r"""The mean over groups of particles of the log power mean of their weights.

    .. math::
        F = \frac1M \sum_{m=1}^M \frac1\gamma \log \frac1K \sum_{k=1}^K w_{mk}^\gamma

    With :math:`s_{mk} = w_{mk}^\gamma / \sum_j w_{mj}^\gamma`, the slopes are :math:`c_{mk} = s_{mk} / M` and the doubly
    reparameterised ones :math:`d_{mk} = c_{mk} (1 - \gamma + \gamma s_{mk})`.

    A subclass says what :attr:`power` is.

    Args:
        num_groups: the number M of groups.
        group_size: the number K of particles in each.
        estimator: of the gradient.
    """

    def __init__(self, num_groups: int, group_size: int, estimator: Estimator) -> None:
        super().__init__(num_groups * group_size, estimator)
        self._groups = num_groups

    @property
    @abstractmethod
    def power(self) -> float:
        r"""The power :math:`\gamma`."""

    def value(self, log_weights: Tensor) -> Tensor:
        """Compute the bound F, shape ``(M K, B) -> (B,)``."""
        return self._of_groups(log_weights).mean(0)

    def slopes(self, log_weights: Tensor) -> Tensor:
        """Compute the normalised powers of the weights within each group, divided by the number of groups."""
        return self._normalized(log_weights).flatten(0, 1) / self._groups

    def doubly_reparameterized(self, log_weights: Tensor) -> Tensor:
        r"""Compute :math:`c (1 - \gamma + \gamma s)`."""
        normalized = self._normalized(log_weights)
        return (normalized * (1 - self.power + self.power * normalized)).flatten(0, 1) / self._groups

    def signals(self, log_weights: Tensor) -> Tensor:
        """Compute the value of a particle's group minus the mean of the other groups', divided by the number of groups."""
        values = self._of_groups(log_weights)
        others = (values.sum(0) - values) / max(1, self._groups - 1)
        signals = (values - others) / self._groups
        return signals.repeat_interleave(len(log_weights) // self._groups, 0)

    def _of_groups(self, log_weights: Tensor) -> Tensor:
        return log_power_mean(self._grouped(log_weights).transpose(0, 1), self.power)

    def _normalized(self, log_weights: Tensor) -> Tensor:
        return normalized_powers(self._grouped(log_weights), self.power, dim=1)

    def _grouped(self, log_weights: Tensor) -> Tensor:
        return log_weights.unflatten(0, (self._groups, -1))


def require_groups(bound: str, num_groups: int, group_size: int) -> None:
    """Raise an InputError where there is no group, or nothing in it."""
    for name, number in (("num_groups", num_groups), ("group_size", group_size)):
        if number < 1:
            raise InputError(f"{name} is {number}; {bound} needs at least 1")
