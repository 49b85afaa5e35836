"""The Student-t prior, with heavy tails."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.priors.prior import Prior


class StudentT(Prior):
    r"""The Student-t prior: independent dimensions of unit scale, which let z lie far out.

    .. math::
        p(z) = \prod_d \frac{\Gamma((\nu + 1) / 2)}{\Gamma(\nu / 2) \sqrt{\nu \pi}} (1 + z_d^2 / \nu)^{-(\nu + 1) / 2}

    on the site ``z``. A normal guide has lighter tails: where data say little of z, look at k-hat.

    Args:
        latent_dim: length of z.
        df: the degrees of freedom :math:`\nu`.

    Raises:
        InputError: where ``df`` is not a finite positive number.
    """

    df: Tensor
    loc: Tensor

    def __init__(self, latent_dim: int, df: float = 5.0) -> None:
        super().__init__(latent_dim)
        if not df > 0.0 or math.isinf(df):
            raise InputError(f"df is {df}; expected a finite positive number")
        self.register_buffer("df", torch.full((latent_dim,), float(df)), persistent=False)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Tensor:
        return pyro.sample("z", dist.StudentT(self.df, self.loc).to_event(1))
