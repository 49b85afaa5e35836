r"""Data in units of their own, :math:`u = (x - m) / s`: a pair to which it is all one in what units data were written down.

Every number of a datum has an origin :math:`m_i` of its own, and all have one unit :math:`s`, so that what varies more in
the data still weighs more.
"""

from dataclasses import dataclass
from typing import Self

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.likelihoods import Normal
from pyrovae.networks import Build, Shape


@dataclass(frozen=True)
class Units:
    r"""The mean of some data as origin, and as unit the root of the mean of their variances; 1 where all data are alike.

    Attributes:
        origin: :math:`m`, shape ``event_shape``.
        unit: :math:`s`, a positive number.
    """

    origin: Tensor
    unit: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """The units of data of shape ``(N, *event_shape)``.

        Raises:
            InputError: where the square of the unit is no number of the data's precision, in which densities are computed.
        """
        wide = x.double()
        origin = wide.mean(0)
        unit = (wide - origin).square().mean().sqrt()
        if unit <= torch.finfo(x.dtype).eps * origin.abs().max():
            unit = torch.ones_like(unit)
        square = unit.to(x.dtype).square()
        if not square.isfinite() or not square:
            raise InputError(
                f"the data have a standard deviation of {unit.item():.3g}, whose square is not a positive number of "
                f"{x.dtype}; scale them first, with sklearn.preprocessing.StandardScaler for instance"
            )
        return cls(origin.to(x.dtype), unit.to(x.dtype))


class Rescaled(nn.Module):
    r"""A network that sees data in their units, :math:`f((x - m) / s)`.

    Args:
        build: builds the network f from its input and output shapes.
        units: those of the data.
        in_shape: shape of one datum.
        out_shape: shape of one output.
    """

    origin: Tensor
    unit: Tensor

    def __init__(self, build: Build, units: Units, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__()
        self.network = build(in_shape, out_shape)
        self.register_buffer("origin", units.origin)
        self.register_buffer("unit", units.unit)

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - self.origin) / self.unit)


class RescaledNormal(Normal):
    r"""The Normal likelihood of data in their units, :math:`p(x \mid z) = \prod_i N(x_i; m_i + s \mu_i, (s \sigma)^2)`.

    The decoder gives :math:`\mu`, of shape ``event_shape``; :math:`\sigma`, one for all, is learned and begins at 1, where
    the density is that of data around their mean.

    Args:
        units: those of the data.
        event_shape: shape of one datum.
    """

    origin: Tensor
    unit: Tensor

    def __init__(self, units: Units, event_shape: Shape) -> None:
        super().__init__(event_shape, learned="shared")
        self.register_buffer("origin", units.origin)
        self.register_buffer("unit", units.unit)

    def around(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.Normal(self.origin + self.unit * loc, self.unit * scale)

    def start(self, mean: Tensor) -> Tensor:
        """The mean, in units of the data."""
        return (mean - self.origin) / self.unit
