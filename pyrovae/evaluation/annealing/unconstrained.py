r"""Unconstrained numbers for the values of a latent: bijections :math:`T: \mathbb{R}^d \to \mathrm{support}`."""

import math
from typing import Any

import pyro.distributions.constraints as pyro_constraints
import torch
from pyro.distributions import transforms as pyro_transforms
from torch import Tensor
from torch.distributions import biject_to, constraints, transforms

from pyrovae.engine.plates import Plates
from pyrovae.engine.shapes import data_place, per_datum
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import within_independent


class Chart:
    """The values of one latent site as unconstrained numbers, and back.

    Args:
        site: where the latent is, with a value that shows its shape.
        support: the values that it can have.
        plates: where the data lie.

    Raises:
        NotImplementedError: where no bijection leads from all real numbers to the support.
    """

    def __init__(self, site: Site, support: Any, plates: Plates) -> None:
        self._site, self._plates = site, plates
        self._map: Any = bijection(support)
        rank = self._map.codomain.event_dim - self._map.domain.event_dim
        self._place = data_place(site, plates) + rank - 1  # in a value with one more dimension behind
        self._alike = site["fn"].event_dim - self._map.codomain.event_dim
        self._shape = tuple(self._data_first(site["value"]).shape[2:])

    @property
    def size(self) -> int:
        """How many unconstrained numbers a datum has."""
        return math.prod(self._shape)

    def pack(self, value: Tensor) -> Tensor:
        """Values of the site as numbers of shape ``(K, B, size)``."""
        return self._data_first(value).flatten(2)

    def unpack(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Values of the site, and the logarithm of what volumes grow by on the way to them, shape ``(K, B)``."""
        shaped = u.reshape(*u.shape[:2], *self._shape)
        free = shaped.movedim((0, 1), (0, self._place)).squeeze(-1)
        value = self._map(free)
        volume = self._map.log_abs_det_jacobian(free, value)
        if self._alike:  # numbers of one event, each of which is mapped by itself
            volume = volume.sum([*range(-self._alike, 0)])
        return value, per_datum(volume, self._site, len(u), self._plates)

    def _data_first(self, value: Tensor) -> Tensor:
        return self._map.inv(value).unsqueeze(-1).movedim((0, self._place), (0, 1))


def bijection(support: Any) -> transforms.Transform:
    """From all real numbers to a support: torch's and Pyro's, and those here of triangles and of matrices.

    Raises:
        NotImplementedError: where there is none.
    """
    base, repeated = within_independent(support)
    if base not in _OURS:
        return biject_to(support)
    return transforms.IndependentTransform(_OURS[base], repeated) if repeated else _OURS[base]


class LowerTriangle(transforms.Transform):
    r"""From :math:`\mathbb{R}^{d (d + 1) / 2}` to lower triangles, whose diagonal is :math:`\exp` of its numbers."""

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


def same_support(one: Any, other: Any) -> bool:
    """Whether two supports have the same values, at bounds that are numbers or tensors."""
    if isinstance(one, constraints.Constraint):
        return type(one) is type(other) and same_support(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_support(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_support, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one == other)
