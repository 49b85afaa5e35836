"""What is asked of each datum's estimate, and what it takes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.estimates import importance

Array = NDArray[np.float64]
MARGIN = 2.0
"""Factor by which more draws are taken than the error that was seen would need, as it is itself an estimate."""
BUDGET = 500_000
"""Evaluations of the model that a datum may cost, if nothing else is said."""


@dataclass(frozen=True)
class Goal:
    """Half the width of an interval that is asked for, and the cost at which it is given up.

    Attributes:
        tolerance: the largest distance from log p(x) to an end of its interval, in nats.
        level: the level of the interval.
        budget: the most evaluations of the model for one datum.

    Raises:
        InputError: for a tolerance or a budget that is not positive, and a level that is not between 0 and 1.
    """

    tolerance: float
    level: float
    budget: int

    def __post_init__(self) -> None:
        require_positive(budget=self.budget)
        if not 0.0 < self.tolerance < math.inf:
            raise InputError(f"tolerance is {self.tolerance}; expected a positive number of nats, as 0.1")
        if not 0.0 < self.level < 1.0:
            raise InputError(f"level is {self.level}; expected a number between 0 and 1, as 0.95")

    def reached(self, log_p: Array, standard_error: Array, number: int) -> NDArray[np.bool_]:
        """Return which estimates of ``number`` draws each have an interval that is narrow enough."""
        down, up = importance.interval(np.zeros_like(log_p), standard_error, number, self.level)
        return np.isfinite(log_p) & (up <= self.tolerance) & (-down <= self.tolerance)

    def draws(self, standard_error: Array, number: NDArray[np.int64]) -> Array:
        """Compute the number of draws a datum that is expected to reach the goal, from the errors at ``number`` draws."""
        widest = -math.expm1(-self.tolerance) / importance.student(10**6, self.level)
        needed = MARGIN * number * np.square(standard_error / widest)
        return np.where(np.isnan(needed), math.inf, needed)
