"""Means over data, their standard errors, and the intervals that these make."""

import math

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates.importance import student

Array = NDArray[np.float64]


def mean_and_error(values: Array) -> tuple[float, float]:
    r"""Compute the mean and :math:`\mathrm{sd} / \sqrt N`, which is NaN for a single value and where one is infinite."""
    if len(values) < 2:
        return float(values.mean()), math.nan
    with np.errstate(invalid="ignore"):
        return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def means_and_errors(values: Array) -> tuple[Array, Array]:
    """Compute :func:`mean_and_error` along the last axis, ``(..., N) -> (...), (...)``."""
    found = [mean_and_error(column) for column in values.reshape(-1, values.shape[-1])]
    means, errors = np.array(found).T
    return means.reshape(values.shape[:-1]), errors.reshape(values.shape[:-1])


def monte_carlo_error(standard_error: Array) -> Array:
    r"""Compute :math:`\sqrt{\sum_n \mathrm{se}_n^2} / N`, the error of a mean over data, ``(..., N) -> (...)``."""
    return np.sqrt(np.square(standard_error).sum(-1)) / standard_error.shape[-1]


def student_interval(
    mean: Array, standard_error: Array, number: int | NDArray[np.int64], level: float
) -> tuple[Array, Array]:
    r"""Compute :math:`m \mp t_{n - 1} \mathrm{se}`, the interval of means of n numbers each; NaN where n is 1.

    Raises:
        InputError: for a level that is not between 0 and 1.
    """
    reach = student(number, level) * standard_error
    with np.errstate(invalid="ignore"):
        return mean - reach, mean + reach
