"""Matrices that have no factor or inverse: errors of a whole batch, and numbers that are none of the matrix alone."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FailuresAsNumbers(TorchFunctionMode):
    """Within it, what torch would raise of one matrix of a batch is NaN in its place, and the others are as they are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call: Any = _LENIENT.get(func, func)
        return call(*args, **(kwargs or {}))


def _cholesky(matrix: Tensor, upper: bool = False) -> Tensor:
    return _where_it_is(*torch.linalg.cholesky_ex(matrix, upper=upper))


def _inverse(matrix: Tensor) -> Tensor:
    return _where_it_is(*torch.linalg.inv_ex(matrix))


def _where_it_is(found: Tensor, info: Tensor) -> Tensor:
    """What was found of each matrix, where nothing went wrong."""
    return torch.where((info == 0)[..., None, None], found, math.nan)


def _solve(matrix: Tensor, other: Tensor, *, left: bool = True) -> Tensor:
    found, info = torch.linalg.solve_ex(matrix, other, left=left)
    good = info == 0
    return torch.where(good[(..., *[None] * (found.dim() - good.dim()))], found, math.nan)


_LENIENT: dict[Any, Callable[..., Any]] = {
    torch.linalg.cholesky: _cholesky,
    torch.cholesky: _cholesky,
    Tensor.cholesky: _cholesky,
    torch.linalg.inv: _inverse,
    torch.inverse: _inverse,
    Tensor.inverse: _inverse,
    torch.linalg.solve: _solve,
}
