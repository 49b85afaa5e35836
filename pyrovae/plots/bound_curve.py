"""A figure of lower and upper bounds against their number of particles, and log p(x) between them."""

from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pyrovae.evaluation import BoundCurve, LogLikelihood
from pyrovae.plots.axes import given_or_new, quiet
from pyrovae.plots.gaps import NOTE, count_particles, described, draw_gaps, require_finite
from pyrovae.plots.palette import ASIDE, CLASSES


def bound_curve(curve: BoundCurve, ax: Axes | None = None) -> Axes:
    r"""Draw bounds against K, and the estimate of :math:`\log p(x)` that they approach.

    Bars are 95% intervals for the *gap* to :math:`\log \hat p(x)`, datum by datum, so that the differences between data,
    which move all points up and down together, do not hide it. The band about the line is the 95% interval that its draws
    leave; the error that the choice of data leaves, common to everything, is in the title. Bounds meant to be above have
    broken lines and open markers; what is infinite is left out.

    Args:
        curve: what :func:`pyrovae.evaluation.bound_curve` returns.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for an estimate of :math:`\log p(x)` whose mean is not finite.
    """
    require_finite(curve.log_likelihood)
    ax = quiet(given_or_new(ax))
    order = np.argsort(curve.num_particles)
    gaps, errors = curve.gap_mean[:, order], curve.gap_error[:, order]
    particles, level = np.array(curve.num_particles)[order].tolist(), curve.log_likelihood.mean
    drawn: list[Any] = []
    for name, upper, colour, *row in zip(curve.names, curve.is_upper, cycle(CLASSES), gaps, errors, strict=False):
        broken = {"linestyle": "--", "markerfacecolor": "white"} if upper else {}
        drawn.append(draw_gaps(ax, level, particles, *row, color=colour, marker="o", label=name, **broken))
    drawn.append(_draw_log_p(ax, curve.log_likelihood))
    count_particles(ax, particles)
    ax.set_ylabel("bound in nats per datum")
    ax.set_xlabel(f"{ax.get_xlabel()}\n{NOTE}")
    ax.set_title(described(curve.log_likelihood), loc="left", fontsize="medium")
    downwards = np.argsort([*gaps[:, -1], 0.0], kind="stable")
    ax.legend(handles=[drawn[i] for i in downwards], frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _draw_log_p(ax: Axes, estimate: LogLikelihood) -> Line2D:
    """Draw the line that bounds approach, and the interval that its draws leave."""
    half = 1.96 * np.nan_to_num(estimate.monte_carlo_error)
    ax.axhspan(estimate.mean - half, estimate.mean + half, color=ASIDE, alpha=0.3, linewidth=0)
    return ax.axhline(estimate.mean, color="black", linewidth=1, label="log p(x)")
