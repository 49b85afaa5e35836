"""A figure of pairs in the plane of rate and distortion."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pyrovae.evaluation import RateDistortion
from pyrovae.plots.axes import given_or_new, quiet
from pyrovae.plots.palette import ASIDE, FIRST


def rate_distortion(found: RateDistortion, ax: Axes | None = None) -> Axes:
    r"""Draw each pair as a point, in the order given, with 95% intervals of rate and distortion.

    Along the broken lines the ELBO, :math:`-D - R`, is the same; it rises from one to the next downwards to the left.

    Args:
        found: what :func:`pyrovae.evaluation.rate_distortion` returns.
        ax: where to draw; by default on a new figure.
    """
    ax = quiet(given_or_new(ax))
    rates, rate_errors = np.array([found.rate(name) for name in found.names]).T
    distortions, distortion_errors = np.array([found.distortion(name) for name in found.names]).T
    errors = 1.96 * np.nan_to_num(rate_errors), 1.96 * np.nan_to_num(distortion_errors)
    ax.errorbar(rates, distortions, errors[1], errors[0], fmt="-o", color=FIRST, linewidth=1, capsize=2)
    ax.margins(0.18)
    for name, rate, distortion in zip(found.names, rates, distortions, strict=True):
        ax.annotate(name, (rate, distortion), (6, 6), textcoords="offset points")
    _draw_levels(ax)
    ax.set_xlabel("rate: KL in nats per datum\nbroken lines: of one ELBO, whose value is at their end")
    ax.set_ylabel("distortion: \N{MINUS SIGN}E[log p(x | z)] in nats per datum")
    return ax


def _draw_levels(ax: Axes) -> None:
    """Draw lines of equal ELBO across the axes as they are, with its value at the right or the lower end of each."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for level in MaxNLocator(6).tick_values(left + low, right + high):
        ax.plot([left, right], [level - left, level - right], color=ASIDE, linewidth=0.8, linestyle="--", zorder=0)
        said = f"{round(0.0 - level, 9):g}".replace("-", "\N{MINUS SIGN}")
        style = {"color": ASIDE, "textcoords": "offset points", "fontsize": "small", "annotation_clip": False}
        if low <= level - right <= high:
            ax.annotate(said, (right, level - right), xytext=(4, 0), va="center", **style)
        elif left < level - low < right:
            ax.annotate(said, (level - low, low), xytext=(3, 3), **style)
    ax.set(xlim=(left, right), ylim=(low, high))
