r"""Parts that figures of bounds against their number of particles share.

A bound is drawn at the estimate of :math:`\log p(x)` less its mean gap, with a bar for the gap alone: differences between
data, which move all points up and down together, would hide it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import NullLocator

from pyrovae.errors import InputError
from pyrovae.evaluation import LogLikelihood
from pyrovae.evaluation.estimates.table import method

NOTE = "bars: 95% intervals for the gap to the line"


def draw_gaps(
    ax: Axes, log_p: float, particles: Sequence[int], gaps: np.ndarray, errors: np.ndarray, **style: Any
) -> ErrorbarContainer:
    """Draw a bound against K, with 95% intervals of its gap; a single datum has none."""
    return ax.errorbar(particles, log_p - gaps, 1.96 * np.nan_to_num(errors), capsize=3, **style)


def count_particles(ax: Axes, particles: Sequence[int]) -> None:
    """Label the axis of K."""
    ax.set(xscale="log", xlabel="particles K (1 is the ELBO)")
    ax.set_xticks(particles, [f"{count:,}" for count in particles])
    ax.xaxis.set_minor_locator(NullLocator())


def described(estimate: LogLikelihood) -> str:
    r"""Describe the estimate of :math:`\log p(x)` with its two errors, in two lines."""
    return (
        f"log p(x) {method(estimate)}: {_number(estimate.mean, 2)} nats,\n"
        f"± {_number(estimate.data_error, 2)} from the data, ± {_number(estimate.monte_carlo_error, 3)} from the draws"
    )


def require_finite(estimate: LogLikelihood) -> None:
    """Raise an InputError where there is no line to draw."""
    if not np.isfinite(estimate.mean):
        raise InputError(f"the mean of log p(x) is {estimate.mean}; expected a finite one: leave out the data at -inf")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
