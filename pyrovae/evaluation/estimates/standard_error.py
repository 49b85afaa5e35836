"""A mean over data and its standard error."""

import math

import numpy as np
from numpy.typing import NDArray


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    r"""The mean and :math:`\mathrm{sd} / \sqrt N`, which is NaN for a single value and where one is infinite."""
    if len(values) < 2:
        return float(values.mean()), math.nan
    with np.errstate(invalid="ignore"):
        return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
