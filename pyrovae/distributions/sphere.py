r"""Distributions on the unit sphere :math:`S^{d-1} = \{z \in R^d: |z| = 1\}`, whose densities are per unit of its area."""

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.distributions import register_kl
from torch.nn.functional import normalize, pad

from pyrovae.errors import InputError

_PANELS = 32
_NODES, _WEIGHTS = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(8))
"""Nodes and weights of Gauss-Legendre quadrature over [-1, 1]."""
_NEWTON_STEPS = 8


class UniformSphere(TorchDistribution):
    r"""The uniform distribution on the sphere.

    .. math::
        p(z) = \frac{\Gamma(d / 2)}{2 \pi^{d / 2}}, \qquad |z| = 1

    Args:
        pole: any unit vector, shape ``(d,)``, which says of what length, type and device draws are.
        batch_shape: how many independent draws it makes.
    """

    arg_constraints = {"pole": constraints.sphere}  # noqa: RUF012  # pyright: ignore
    support = constraints.sphere  # pyright: ignore
    has_rsample = True

    def __init__(self, pole: Tensor, batch_shape: Size = Size(), validate_args: bool | None = None) -> None:  # noqa: B008
        self.pole = pole
        super().__init__(batch_shape, pole.shape, validate_args)

    def expand(self, batch_shape: Size, _instance: None = None) -> "UniformSphere":
        return UniformSphere(self.pole, Size(batch_shape), validate_args=False)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        return normalize(torch.randn(shape, dtype=self.pole.dtype, device=self.pole.device), dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return torch.full(shape, -_log_area(len(self.pole)), dtype=self.pole.dtype, device=self.pole.device)


class VonMisesFisher(TorchDistribution):
    r"""The von Mises-Fisher distribution: directions around a mean one, with concentration :math:`\kappa`.

    .. math::
        p(z) = \frac{\kappa^{d/2 - 1}}{(2 \pi)^{d/2} I_{d/2 - 1}(\kappa)}\, e^{\kappa \mu^\top z}, \qquad |z| = 1

    The angle :math:`\theta` between z and :math:`\mu` has a density proportional to
    :math:`e^{\kappa \cos \theta} \sin^{d-2} \theta`; the rest of z is uniform. Quadrature of that density gives the
    normaliser, without Bessel functions, and the distribution function F, which a draw inverts at a uniform number, without
    rejection. Draws carry the gradient of both parameters, by
    :math:`\partial \theta / \partial \kappa = -(\partial F / \partial \kappa) / F'(\theta)`.

    Args:
        loc: the mean direction :math:`\mu`, a unit vector, shape ``(*batch, d)`` with d at least 2.
        concentration: :math:`\kappa \ge 0`, shape ``(*batch,)``; at 0 every direction is alike.

    References:
        | Hyperspherical Variational Auto-Encoders (Davidson, Falorsi, De Cao, Kipf & Tomczak, 2018), which draw by rejection
        | https://arxiv.org/abs/1804.00891
        | Implicit Reparameterization Gradients (Figurnov, Mohamed & Mnih, 2018)
        | https://arxiv.org/abs/1805.08498
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.nonnegative}  # noqa: RUF012  # pyright: ignore
    support = constraints.sphere  # pyright: ignore
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = loc, concentration
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args)

    def expand(self, batch_shape: Size, _instance: None = None) -> "VonMisesFisher":
        expanded = VonMisesFisher(self.loc, self.concentration, validate_args=False)
        super(VonMisesFisher, expanded).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        expanded._angle = self._angle
        return expanded

    @cached_property
    def _angle(self) -> "_Angle":
        """Return the distribution of the angle, of the parameters before they are expanded."""
        return _Angle(self.concentration, self.event_shape[0])

    @property
    def mean(self) -> Tensor:
        """The mean, which lies inside the sphere."""
        return (self.loc * (1.0 - self._angle.mean_height)[..., None]).expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Size = Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        theta = self._angle.draw(shape[:-1])[..., None]
        around = normalize(torch.randn((*shape[:-1], shape[-1] - 1), dtype=theta.dtype, device=theta.device), dim=-1)
        return _turned(torch.cat([theta.cos(), theta.sin() * around], -1), self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        height = (value - self.loc).square().sum(-1) / 2.0
        log_p = -self.concentration * height - self._angle.log_mass - _log_area(self.event_shape[0] - 1)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def entropy(self) -> Tensor:
        """Compute the entropy, in nats, shape ``batch_shape``."""
        mean = -self.concentration * self._angle.mean_height - self._angle.log_mass - _log_area(self.event_shape[0] - 1)
        return -mean.expand(self.batch_shape)


class _Angle:
    r"""The angle between a draw and the mean direction, by quadrature.

    Its density is proportional to :math:`e^{-\kappa h} \sin^{d-2} \theta`, where :math:`h = 1 - \cos \theta`, and taken over
    panels from 0 to :math:`\pi`, or to where less than 1e-17 of it is left: :math:`\kappa h` is a gamma variable cut short.

    Attributes:
        log_mass: the logarithm of the integral of that density, shape ``(*batch,)``.
        mean_height: :math:`E[h]`, shape ``(*batch,)``.
        panel: the width of a panel, shape ``(*batch,)``.
        cumulative: the distribution function at the edges of the panels, shape ``(*batch, panels + 1)``.
    """

    def __init__(self, concentration: Tensor, length: int) -> None:
        self.concentration, self.length = concentration, length
        double = concentration.double()
        reach = (math.sqrt((length - 1) / 2) + 6.5) ** 2 / double.detach().clamp(min=1.0)
        panel = 2.0 / _PANELS * (reach / 2.0).clamp(max=1.0).sqrt().asin()
        starts = torch.arange(_PANELS, dtype=double.dtype, device=double.device) * panel[..., None]
        theta, weights = _nodes(starts, starts + panel[..., None])
        log_masses = self._log_density(theta, double[..., None, None]) + weights.log()
        log_mass = log_masses.flatten(-2).logsumexp(-1)
        masses = (log_masses - log_mass[..., None, None]).exp()
        self.log_mass = log_mass.to(concentration.dtype)
        self.mean_height = (masses * _height(theta)).sum((-2, -1)).to(concentration.dtype)
        self.panel = panel.to(concentration.dtype)
        self.cumulative = pad(masses.sum(-1).cumsum(-1), (1, 0)).to(concentration.dtype)

    def draw(self, shape: Size) -> Tensor:
        """Draw angles, which move with the concentration."""
        with torch.no_grad():
            u = torch.rand(shape, dtype=self.panel.dtype, device=self.panel.device)
            index = (self.cumulative[..., 1:-1] <= u[..., None]).sum(-1)
            start = self.panel * index
            theta = start + self.panel / 2.0
            for _ in range(_NEWTON_STEPS):
                function, density = self.function(theta, start, index)
                theta = torch.minimum(torch.maximum(theta - (function - u) / density, start), start + self.panel)
        function, density = self.function(theta, start, index)
        return theta - (function - function.detach()) / density.detach()

    def function(self, theta: Tensor, start: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Compute distribution function and slope at angles in the panels of this index, which start at ``start``."""
        before = self.cumulative.expand(*index.shape, -1).gather(-1, index[..., None])[..., 0]
        within, weights = _nodes(start, theta)
        angles = torch.cat([within, theta[..., None]], -1)
        densities = (self._log_density(angles, self.concentration[..., None]) - self.log_mass[..., None]).exp()
        slope = densities[..., -1].clamp(min=torch.finfo(theta.dtype).tiny)
        return before + (densities[..., :-1] * weights).sum(-1), slope

    def _log_density(self, theta: Tensor, concentration: Tensor) -> Tensor:
        tiny = torch.finfo(theta.dtype).tiny
        return (self.length - 2) * theta.sin().clamp(min=tiny).log() - concentration * _height(theta)


def _nodes(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the nodes between two angles and their weights, each of shape ``(*start.shape, nodes)``."""
    half = (end - start)[..., None] / 2.0
    return start[..., None] + half * (1.0 + _NODES.to(half)), half * _WEIGHTS.to(half)


def _height(theta: Tensor) -> Tensor:
    r"""Compute :math:`1 - \cos \theta`, precise at small angles."""
    return 2.0 * (theta / 2.0).sin().square()


def direction(vector: Tensor) -> Tensor:
    """Normalise vectors of shape ``(*batch, d)``; a vector of 0 becomes the first axis."""
    first_axis = torch.eye(vector.shape[-1], dtype=vector.dtype, device=vector.device)[0]
    return normalize(vector + 1e-6 * first_axis, dim=-1)


def require_sphere(latent_dim: int) -> None:
    """Raise an InputError where the sphere would be two points."""
    if latent_dim < 2:
        raise InputError(f"latent_dim is {latent_dim}; expected at least 2: in one dimension the sphere is two points")


def _turned(z: Tensor, pole: Tensor) -> Tensor:
    r"""Reflect z so that the first axis goes to the pole, or take the negative of the reflection to the antipode.

    Of the two the one that reflects along the longer vector, :math:`e_1 \mp \mu`, which is never short.
    """
    first, others = pole[..., :1], pole[..., 1:]
    sign = -torch.ones_like(first).copysign(first)
    along = torch.cat([1.0 - sign * first, -sign * others], -1)
    return sign * (z - along * (2.0 * (along * z).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True)))


def _log_area(length: int) -> float:
    """Compute the logarithm of the area of the unit sphere in so many dimensions."""
    return math.log(2.0) + length / 2 * math.log(math.pi) - math.lgamma(length / 2)


@register_kl(VonMisesFisher, UniformSphere)
def _kl(q: Any, p: Any) -> Tensor:
    return _log_area(len(p.pole)) - q.entropy()
