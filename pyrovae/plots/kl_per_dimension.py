"""A figure of the KL of each dimension of the latent."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.evaluation import KLDecomposition
from pyrovae.plots.axes import as_array, given_or_new, quiet
from pyrovae.plots.palette import FIRST

NAMED = 32
"""Number of bars up to which each has its dimension's name below it."""


def kl_per_dimension(kl: KLDecomposition | Tensor | np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the average KL of each dimension of the latent from the prior, the largest first.

    Args:
        kl: what :func:`pyrovae.evaluation.kl_decomposition` returns, or the KL of each dimension, shape ``(D,)``, in nats.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for a decomposition without a KL of each dimension, which says why it has none.
    """
    values = kl.per_dimension if isinstance(kl, KLDecomposition) else as_array(kl)
    if values is None:
        raise InputError(f"there is no KL for each dimension: {kl.no_dimensions}")  # pyright: ignore
    ax = quiet(given_or_new(ax))
    order = np.argsort(-values, kind="stable")
    ranks = np.arange(1, len(values) + 1)
    ax.bar(ranks, values[order], color=FIRST)
    ax.set_xlim(0.4, len(values) + 0.6)
    if len(values) <= NAMED:
        ax.set_xticks(ranks, [f"z{dimension + 1}" for dimension in order])
        ax.tick_params(axis="x", length=0, labelsize="small" if len(values) > 16 else "medium")
        ax.set_xlabel("dimension, by its KL")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("dimensions, ranked by their KL")
    ax.set_ylabel("average KL in nats")
    ax.set_title(f"{len(values)} dimensions, {values.sum():.2f} nats together", loc="left", fontsize="medium")
    return ax
