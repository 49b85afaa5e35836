"""A figure of the importance-weighted bound against its number of particles."""

import numpy as np
from matplotlib.axes import Axes

from pyrovae.errors import InputError
from pyrovae.evaluation import LogLikelihood
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.plots.axes import given_or_new, quiet
from pyrovae.plots.gaps import NOTE, count_particles, described, draw_gaps, require_finite
from pyrovae.plots.palette import ASIDE, FIRST, SECOND


def bound_against_particles(log_likelihood: LogLikelihood, ax: Axes | None = None) -> Axes:
    r"""Draw :math:`\mathrm{IWAE}_K` against K, and the estimate of :math:`\log p(x)` that it approaches from below.

    Bars are 95% intervals for the *gap* :math:`\log \hat p(x) - \mathrm{IWAE}_K`, datum by datum, so that the
    differences between data, which move all points up and down together, do not hide it; the line's own two errors are
    written on it.

    Args:
        log_likelihood: an estimate with bounds.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for an estimate without a bound, or whose mean is not finite.
    """
    if not log_likelihood.bounds:
        raise InputError("the estimate has no bound; expected some: pass num_particles=(1, 5, 50, 500) to log_likelihood")
    require_finite(log_likelihood)
    ax = quiet(given_or_new(ax))
    particles = sorted(log_likelihood.bounds)
    gaps, errors = np.array([mean_and_error(log_likelihood.gap(count)) for count in particles]).T
    draw_gaps(ax, log_likelihood.mean, particles, gaps, errors, color=FIRST, marker="o")
    _draw_log_p(ax, log_likelihood)
    count_particles(ax, particles)
    ax.set_ylabel("importance-weighted bound in nats per datum")
    ax.text(1, 0.02, NOTE, transform=ax.transAxes, ha="right", color=ASIDE)
    return ax


def _draw_log_p(ax: Axes, estimate: LogLikelihood) -> None:
    """Draw the line that the bound approaches, with its name and errors above it."""
    ax.axhline(estimate.mean, color=SECOND, linewidth=1.5)
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "xytext": (4, 4), "va": "bottom"}
    ax.annotate(described(estimate), (0, estimate.mean), color=SECOND, **place)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.15 * (high - low))
