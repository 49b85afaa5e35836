"""Out-of-place substitutes for draws and statistics in place, for which ``torch.func.vmap`` has no rule."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class BatchStatistics:
    """Mean and variance of the batch in one call of batch normalisation in training."""

    def __init__(self, x: Tensor, running: tuple[Tensor, Tensor], momentum: float) -> None:
        dims = [dim for dim in range(x.dim()) if dim != 1]
        self.mean, self.variance = x.mean(dims), x.var(dims)
        self._running, self._momentum = running, momentum

    @torch.no_grad()
    def update(self, means: Tensor, variances: Tensor) -> None:
        """Move the running statistics as so many runs would have, one after another."""
        for running, batches in zip(self._running, (means, variances), strict=True):
            for batch in batches:
                running.lerp_(batch.detach().to(running.dtype), self._momentum)


class OutOfPlace(TorchFunctionMode):
    """A mode that does out of place what a program does in place and ``vmap`` has no rule for.

    Draws in place (``torch.empty(3).normal_()``) become draws; the tensor that they were to fill is filled with NaN, so
    that code which reads it, instead of what was returned, sees NaN. Batch normalisation in training
    normalises, and its running statistics are moved after the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self.statistics: list[BatchStatistics] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.requires_grad_ and args[0].requires_grad:  # a parameter that pyro.module enters anew
            return args[0]
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        drawn = _draws.get(func)
        if drawn is None:
            return func(*args, **kwargs)
        kwargs.pop("generator", None)
        values = drawn(*args, **kwargs)
        if args[0].is_floating_point():
            args[0].fill_(math.nan)
        return values

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training or running_mean is None or running_var is None:
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        self.statistics.append(BatchStatistics(x.detach(), (running_mean, running_var), momentum))
        return F.batch_norm(x, None, None, weight, bias, True, momentum, eps)


def _normal(x: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return torch.randn_like(x) * std + mean


def _uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand_like(x) * (high - low) + low


def _exponential(x: Tensor, rate: float = 1.0) -> Tensor:
    return -torch.log1p(-torch.rand_like(x)) / rate


def _bernoulli(x: Tensor, p: float | Tensor = 0.5) -> Tensor:
    return (torch.rand_like(x) < p).to(x.dtype)


_draws: dict[Any, Callable[..., Tensor]] = {
    Tensor.normal_: _normal,
    Tensor.uniform_: _uniform,
    Tensor.exponential_: _exponential,
    Tensor.bernoulli_: _bernoulli,
}
