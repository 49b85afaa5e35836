r"""Bijections :math:`T: \mathbb{R}^d \to \mathrm{support}`: torch's, Pyro's, and ours of triangles and of matrices."""

import math
from typing import Any

import pyro.distributions.constraints as pyro_constraints
import torch
from pyro.distributions import transforms as pyro_transforms
from torch import Tensor
from torch.distributions import biject_to, constraints, transforms

from pyrovae.engine.supports import within_independent


def bijection(support: Any) -> transforms.Transform:
    """The bijection from unconstrained space to a support.

    Raises:
        NotImplementedError: where there is none.
    """
    base, repeated = within_independent(support)
    if base not in _OURS:
        return biject_to(support)
    return transforms.IndependentTransform(_OURS[base], repeated) if repeated else _OURS[base]


class LowerTriangle(transforms.Transform):
    r"""Map :math:`\mathbb{R}^{d (d + 1) / 2}` to lower triangles, whose diagonal is :math:`\exp` of its numbers."""

    domain = constraints.real_vector  # pyright: ignore
    codomain = constraints.lower_cholesky  # pyright: ignore
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        rows, columns = self._places(x)
        triangle = x.new_zeros(self.forward_shape(x.shape))
        triangle[..., rows, columns] = torch.where(rows == columns, x.exp(), x)
        return triangle

    def _inverse(self, y: Tensor) -> Tensor:
        rows, columns = torch.tril_indices(y.shape[-1], y.shape[-1], device=y.device)
        numbers = y[..., rows, columns]
        return torch.where(rows == columns, numbers, 1.0).log() + torch.where(rows == columns, 0.0, numbers)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        rows, columns = self._places(x)
        return torch.where(rows == columns, x, 0.0).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        d = _side(shape[-1])
        return torch.Size([*shape[:-1], d, d])

    def inverse_shape(self, shape: Any) -> torch.Size:
        return torch.Size([*shape[:-2], shape[-1] * (shape[-1] + 1) // 2])

    def _places(self, x: Tensor) -> Tensor:
        return torch.tril_indices(_side(x.shape[-1]), _side(x.shape[-1]), device=x.device)


def _side(numbers: int) -> int:
    r"""The side d of a triangle of :math:`d (d + 1) / 2` numbers."""
    return (math.isqrt(8 * numbers + 1) - 1) // 2


_OURS: dict[Any, transforms.Transform] = {
    constraints.lower_cholesky: LowerTriangle(),
    pyro_constraints.softplus_lower_cholesky: LowerTriangle(),
    constraints.positive_definite: transforms.ComposeTransform([LowerTriangle(), pyro_transforms.CholeskyTransform().inv]),
}
