"""Numerical failures of the programs at some chains, as NaN for these chains alone.

A program raises one error for a whole batch of matrices of which a single one has no Cholesky factor. Where torch can say
which, NaN takes the place of the error; where it cannot, the batch is bisected until the chains that fail are alone.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path.state import State

NUMERICAL_ERRORS = torch.linalg.LinAlgError, ValueError, ArithmeticError  # pyright: ignore[reportPrivateImportUsage]
"""What programs raise for numbers that they cannot handle: a matrix has no Cholesky factor, a scale is not positive."""


Found = TypeVar("Found")


def evaluated(evaluate: Callable[[], Found], otherwise: Callable[[], Found], *, fused: bool = False) -> Found:
    """Evaluate the programs; where they raise a numerical error, otherwise.

    What is fused raises one type of error for all failures.
    """
    try:
        return evaluate()
    except InputError:
        raise
    except NUMERICAL_ERRORS:
        return otherwise()
    except RuntimeError:
        if not fused:
            raise
        return otherwise()


class FailuresAsNaN(TorchFunctionMode):
    """Let torch's factorizations and inverses return NaN for a matrix of a batch for which they would raise an error."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call: Any = _LENIENT.get(func, func)
        return call(*args, **(kwargs or {}))


def bisected(evaluate: Callable[[Tensor], State], u: Tensor, safe: Tensor) -> State:
    """Evaluate a path at ``u``, and return NaN for the chains at which the programs raise an error.

    Args:
        evaluate: the state at positions of shape ``(K', B, D)``, for any K' up to K; raises an error where a chain fails.
        u: the positions, shape ``(K, B, D)``.
        safe: positions at which no chain fails; they fill up the chains that are not evaluated.
    """
    nothing = torch.full_like(u, math.nan)
    whole = State(u, nothing[..., 0], nothing[..., 0], nothing, nothing)
    left = [torch.arange(u.shape[:2].numel(), device=u.device)]
    while left:
        part = left.pop()
        chosen = torch.zeros_like(whole.log_f0, dtype=torch.bool)
        chosen.view(-1)[part] = True
        rows = chosen.any(1)
        try:
            with FailuresAsNaN():
                found = evaluate(torch.where(chosen[..., None], u, safe)[rows])
        except InputError:
            raise
        except NUMERICAL_ERRORS:
            left += part.tensor_split(2) if len(part) > 1 else []
        else:
            whole = State(*(_with_rows(a, rows, b) for a, b in zip(whole, found, strict=True))).where(chosen, whole)
    return whole


def _with_rows(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    values = values.clone()
    values[rows] = new.to(values.dtype)
    return values


def _cholesky(matrix: Tensor, upper: bool = False) -> Tensor:
    return _where_defined(*torch.linalg.cholesky_ex(matrix, upper=upper))


def _inverse(matrix: Tensor) -> Tensor:
    return _where_defined(*torch.linalg.inv_ex(matrix))


def _solve(matrix: Tensor, other: Tensor, *, left: bool = True) -> Tensor:
    return _where_defined(*torch.linalg.solve_ex(matrix, other, left=left))


def _where_defined(found: Tensor, info: Tensor) -> Tensor:
    """The result for each matrix, shape ``(..., n, m)`` or ``(..., n)``, with NaN where torch reports a failure."""
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
