"""A figure of the difference in log p(x) of several models from the best."""

import numpy as np
from matplotlib.axes import Axes

from pyrovae.evaluation import Comparison
from pyrovae.plots.axes import given_or_new, quiet
from pyrovae.plots.palette import ASIDE, CLASSES


def comparison(compared: Comparison, ax: Axes | None = None) -> Axes:
    r"""Draw a model a row: its :math:`\log p(x)` below that of the best, with a 95% interval of the paired difference.

    The pale bar behind it is the 95% interval of the model's own mean over data, which all models share for the most part
    and which does not tell them apart.

    Args:
        compared: what :func:`pyrovae.evaluation.compare` returns.
        ax: where to draw; by default on a new figure.
    """
    ax = quiet(given_or_new(ax))
    rows = np.arange(len(compared.names))
    found = [compared.difference(name) for name in compared.names]
    below = np.array([difference for difference, _ in found])
    errors = np.nan_to_num([error for _, error in found])
    own = np.nan_to_num([estimate.data_error for estimate in compared.estimates.values()])
    ax.errorbar(-below, rows, xerr=1.96 * own, fmt="none", ecolor=ASIDE, elinewidth=5, alpha=0.35)
    ax.errorbar(-below, rows, xerr=1.96 * errors, fmt="o", color=CLASSES[0], capsize=4)
    ax.axvline(0.0, color="black", linewidth=1)
    ax.set_yticks(rows, compared.names)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    best = next(iter(compared.estimates.values()))
    ax.set_xlabel(
        "log p(x) less that of the best, in nats per datum\nbars: 95% of the paired difference; pale: of each mean"
    )
    said = f"{best.mean:.2f}".replace("-", "\N{MINUS SIGN}")
    ax.set_title(f"the best: {compared.names[0]}, {said} nats", loc="left", fontsize="medium")
    return ax
