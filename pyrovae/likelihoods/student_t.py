"""The Student-t likelihood of real-valued data with far outliers."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.likelihoods.location_scale import LocationScale, ScaleOf
from pyrovae.networks import Shape


class StudentT(LocationScale):
    r"""Independent Student-t pixels, whose heavy tails tolerate outliers.

    .. math::
        p(x \mid z) = \prod_i \frac{\Gamma((\nu + 1) / 2)}{\Gamma(\nu / 2) \sqrt{\nu \pi}\, \sigma_i}
        \left( 1 + \frac{(x_i - \mu_i)^2}{\nu \sigma_i^2} \right)^{-(\nu + 1) / 2}

    Args:
        event_shape: shape of one datum.
        scale: the scale, or where it begins; the standard deviation is :math:`\sqrt{\nu / (\nu - 2)}` times as large.
        learned: where the scale comes from, as of :class:`~pyrovae.likelihoods.Normal`.
        df: the degrees of freedom :math:`\nu`, above 1, since with less there is no mean.

    Raises:
        InputError: for degrees of freedom or a scale that are none, and for another word than those three.
    """

    df: Tensor

    def __init__(self, event_shape: Shape, scale: float = 1.0, learned: ScaleOf = "fixed", df: float = 5.0) -> None:
        super().__init__(event_shape, scale, learned)
        if not df > 1.0 or math.isinf(df):
            raise InputError(f"df is {df}; expected a finite number above 1: for df without bound take Normal")
        self.register_buffer("df", torch.tensor(float(df)), persistent=False)

    def around(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return dist.StudentT(self.df, loc, scale)
