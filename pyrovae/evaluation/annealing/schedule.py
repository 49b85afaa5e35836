r"""The schedule of inverse temperatures, :math:`0 = \beta_0 < \dots < \beta_T = 1`."""

from typing import Literal

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.interpolation import interpolated

Schedule = Literal["sigmoid", "linear", "adaptive"]
"""How inverse temperatures lie between 0 and 1."""

STEEPNESS = 4.0
"""The largest argument of the logistic function in the sigmoid schedule."""


def schedule_of_each_datum(temperatures: int, schedule: Schedule, places: Tensor, variances: Tensor) -> Tensor:
    r"""The inverse temperatures of each datum, shape ``(T + 1, B)``, float64.

    The adaptive schedule cuts :math:`\int \mathrm{sd}(\log f_1 - \log f_0)\, d\beta` into equal parts, so that each costs as
    much of the effective sample size: the conditional one of a small step is
    :math:`1 - (\Delta\beta)^2 \mathrm{Var}(\log f_1 - \log f_0)`.

    Args:
        temperatures: the number T of temperatures after the first.
        schedule: its name.
        places: the inverse temperatures of pilot chains, shape ``(m,)``.
        variances: the variance of :math:`\log f_1 - \log f_0` over the pilot chains there, shape ``(m, B)``.
    """
    if schedule == "sigmoid":
        return sigmoid_schedule(temperatures, places.device)[:, None].expand(-1, variances.shape[1])
    line = torch.linspace(0.0, 1.0, temperatures + 1, dtype=torch.float64, device=places.device)[:, None]
    if schedule == "linear":
        return line.expand(-1, variances.shape[1])
    deviation = variances.nan_to_num(posinf=0.0).sqrt()
    pieces = (deviation[1:] + deviation[:-1]) / 2.0 * places.diff()[:, None] + 1e-12
    length = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    return interpolated(line * length[-1], length, places[:, None].expand_as(length))


def sigmoid_schedule(temperatures: int, device: torch.device) -> Tensor:
    """Inverse temperatures from 0 to 1 that are dense at both ends, shape ``(temperatures + 1,)``, float64."""
    line = torch.linspace(-STEEPNESS, STEEPNESS, temperatures + 1, dtype=torch.float64, device=device).sigmoid()
    return (line - line[0]) / (line[-1] - line[0])
