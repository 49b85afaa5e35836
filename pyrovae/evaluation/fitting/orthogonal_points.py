r"""Points at which the expectations of a normal distribution are taken: orthogonal directions, and their opposites.

.. math::
    v_{\pm d} = \pm r\, Q_d, \qquad Q \text{ a random orthogonal matrix},

with lengths :math:`r` that are quantiles of those of draws of :math:`N(0, I_D)`, one for each matrix, and as a whole such
that the mean of the points is exactly 0 and their covariance exactly :math:`I`. The average of a function over them is thus
exact where the function is a polynomial of degree 3 or less.

Sources: Yu, Suresh, Choromanski, Holtmann-Rice and Kumar, Orthogonal Random Features (arXiv:1610.09072); McNamee and
Stenger, Construction of Fully Symmetric Numerical Integration Formulas (1967), for the rule of degree 3.
"""

import math

import scipy.stats
import torch
from torch import Tensor

FEWEST = 32
"""Fewest points a datum; in few dimensions several orthogonal matrices make them."""


def number_of_points(dimensions: int) -> int:
    """Count the points a datum: twice the dimensions, as often as makes 32."""
    return 2 * dimensions * math.ceil(FEWEST / (2 * dimensions))


def orthogonal_points(data: int, example: Tensor) -> Tensor:
    """Draw points for each datum, of the kind of ``example`` with dimensions last; shape ``(K, data, D)``."""
    dimensions = example.shape[-1]
    turns = number_of_points(dimensions) // (2 * dimensions)
    noise = torch.randn(turns, data, dimensions, dimensions, dtype=example.dtype, device=example.device)
    directions = _lengths(turns, dimensions, noise)[:, None, None, None] * torch.linalg.qr(noise)[0]
    half = directions.permute(0, 2, 1, 3).flatten(0, 1)
    return torch.cat([half, -half])


def _lengths(number: int, dimensions: int, example: Tensor) -> Tensor:
    """Compute quantiles of the chi distribution, scaled so that their squares have the mean of its square."""
    quantiles = scipy.stats.chi(dimensions).ppf([(place + 0.5) / number for place in range(number)])
    quantiles *= math.sqrt(dimensions * number / (quantiles**2).sum())
    return torch.from_numpy(quantiles).to(example)
