"""A figure of the bound in training, epoch by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pyrovae.errors import InputError
from pyrovae.plots.axes import given_or_new, quiet
from pyrovae.plots.palette import ASIDE, FIRST, SECOND

Metrics = Sequence[Mapping[str, float]]
Curve = tuple[np.ndarray, np.ndarray]


def loss_curve(metrics: Metrics, ax: Axes | None = None) -> Axes:
    r"""Draw the bound in training and validation against the epoch, and its two terms in training, in nats a datum.

    The band hangs from the reconstruction term :math:`E_q[\log p(x \mid z)]` and is as deep as the KL term, so that its
    lower edge is the ELBO. The axis leaves out the plunge of the first tenth of the epochs.

    Args:
        metrics: one mapping an epoch, with ``epoch`` and ``train_bound`` and, where known, ``validation_bound``,
            ``train_reconstruction`` and ``train_kl``.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for metrics without an epoch that has a ``train_bound``.
    """
    ax = quiet(given_or_new(ax))
    train, validation = curve(metrics, "train_bound"), curve(metrics, "validation_bound")
    if not len(train[0]):
        raise InputError("no epoch in metrics has a train_bound; expected at least one: read them from metrics.jsonl")
    _draw_terms(ax, curve(metrics, "train_reconstruction"), curve(metrics, "train_kl"))
    marker = "o" if len(train[0]) < 10 else ""
    ax.plot(*train, marker=marker, color=FIRST, linewidth=2, label="bound, training")
    if len(validation[0]):
        ax.plot(*validation, marker=marker, color=SECOND, linewidth=2, label="bound, validation")
    if limits := without_the_plunge([np.asarray(line.get_ydata()) for line in ax.lines]):
        ax.set_ylim(*limits)
    ax.set(xlabel="epoch", ylabel="nats per datum")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False, loc="best")
    return ax


def curve(metrics: Metrics, name: str) -> Curve:
    """Select the epochs that have a number under this name, and the numbers."""
    points = [(row["epoch"], row[name]) for row in metrics if row.get(name) is not None]
    epochs, values = np.array(points, float).reshape(-1, 2).T
    return epochs, values


def _draw_terms(ax: Axes, reconstruction: Curve, kl: Curve) -> None:
    (epochs, top), (kl_epochs, depth) = reconstruction, kl
    if len(epochs) and np.array_equal(epochs, kl_epochs):
        ax.plot(epochs, top, color=ASIDE, linewidth=1, label="reconstruction, training")
        ax.fill_between(epochs, top - depth, top, color=ASIDE, alpha=0.2, linewidth=0, label="KL, training")


def without_the_plunge(curves: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Compute the limits of an axis without the first tenth of the epochs; None where nothing changes after it."""
    values = np.concatenate([values[len(values) // 10 :] for values in curves])
    values = values[np.isfinite(values)]
    if not len(values) or np.ptp(values) == 0:
        return None
    margin = 0.05 * np.ptp(values)
    return float(values.min() - margin), float(values.max() + margin)
