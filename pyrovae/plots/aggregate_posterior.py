"""A figure of the aggregate posterior against the prior."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import make_axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.plots.axes import as_array, given_or_new, quiet
from pyrovae.plots.palette import FIRST

SHARES = (0.5, 0.95)
"""Shares of the draws that contours enclose."""
MOST = 2000
"""Number of draws of each that make the contours and are drawn as points; the deviations are of all."""

NAMED = 32
"""Number of dimensions up to which bars have names; above it they have ranks."""


def aggregate_posterior(
    prior: Tensor | np.ndarray, posterior: Tensor | np.ndarray, ax: Axes | None = None, points: bool = True
) -> Axes:
    r"""Draw the aggregate posterior over the prior in the plane, and the standard deviations of both by dimension beside it.

    The plane is the latent space itself where that has two dimensions, and else that of the two directions in which the
    aggregate posterior varies most, so that the two may differ elsewhere unseen. Contours are of a kernel density estimate
    and enclose half and 95% of the draws.

    Args:
        prior: draws, shape ``(S, D)``.
        posterior: draws, shape ``(N, D)``; both are what :func:`pyrovae.evaluation.aggregate_posterior` returns.
        ax: where to draw; by default on a new figure.
        points: whether to draw the aggregate posterior's draws too.

    Raises:
        InputError: for shapes that are not these, and for fewer than two dimensions or three draws.
    """
    draws = {"prior": as_array(prior), "aggregate posterior": as_array(posterior)}
    _require_draws(*draws.values())
    ax = quiet(given_or_new(ax))
    planes, axes = _projected(*draws.values())
    ax.set(xlabel=axes[0], ylabel=axes[1])
    if points:
        ax.scatter(*planes[1][:MOST].T, s=5, linewidths=0, alpha=0.35, color=FIRST)
    for plane, colour, style in zip(planes, ("black", FIRST), ("dashed", "solid"), strict=True):
        _draw_contours(ax, plane[:MOST], colour, style)
    ax.set_aspect("equal", "datalim")
    ax.legend(
        handles=[
            Line2D([], [], color="black", linestyle="dashed", label="prior"),
            Line2D([], [], color=FIRST, label="aggregate posterior"),
        ],
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
    )
    _draw_deviations(ax, *(values.std(0) for values in draws.values()))
    return ax


def _require_draws(prior: np.ndarray, posterior: np.ndarray) -> None:
    for name, values in (("prior", prior), ("posterior", posterior)):
        if values.ndim != 2 or values.shape[1] < 2 or len(values) < 3:
            raise InputError(
                f"{name} has shape {values.shape}; expected (draws, D) with at least 3 draws and D of at least 2: draw "
                "histograms of one dimension"
            )
    if prior.shape[1] != posterior.shape[1]:
        raise InputError(f"prior has {prior.shape[1]} dimensions and posterior {posterior.shape[1]}; expected as many")


def _projected(prior: np.ndarray, posterior: np.ndarray) -> tuple[list[np.ndarray], tuple[str, str]]:
    """Project both to the plane, and name its axes."""
    if prior.shape[1] == 2:
        return [prior, posterior], ("z1", "z2")
    from sklearn.decomposition import PCA  # takes a second to import

    components = PCA(2, svd_solver="covariance_eigh").fit(posterior)
    shares = components.explained_variance_ratio_
    first, second = (f"component {n} of the aggregate posterior ({share:.0%})" for n, share in enumerate(shares, 1))
    return [components.transform(prior), components.transform(posterior)], (first, second)


def _draw_contours(ax: Axes, draws: np.ndarray, colour: str, style: str) -> None:
    """Draw contours of the highest density; none where the draws lie on a line, which has no density in the plane."""
    from scipy.stats import gaussian_kde

    if np.linalg.matrix_rank(np.cov(draws.T)) < 2:
        return
    density = gaussian_kde(draws.T)
    levels = np.quantile(density(draws.T), [1.0 - share for share in sorted(SHARES, reverse=True)])
    low, high = draws.min(0), draws.max(0)
    margin = 0.15 * (high - low)
    grid = np.meshgrid(*np.linspace(low - margin, high + margin, 80).T)
    values = density(np.stack(grid).reshape(2, -1)).reshape(grid[0].shape)
    ax.contour(*grid, values, levels=levels, colors=colour, linestyles=style, linewidths=1.3)


def _draw_deviations(ax: Axes, prior: np.ndarray, posterior: np.ndarray) -> None:
    """Draw the standard deviations by dimension, in axes to the right, for which those of the plane make room."""
    beside = quiet(make_axes(ax, location="right", fraction=0.3, aspect=2.2, anchor=(0.0, 0.5))[0])
    order = np.argsort(-posterior, kind="stable")
    places = np.arange(1, len(order) + 1)
    beside.barh(places, posterior[order], color=FIRST)
    beside.plot(np.repeat(prior[order], 2), np.stack([places - 0.5, places + 0.5], 1).ravel(), color="black", linestyle="--")
    beside.set_ylim(len(order) + 0.5, 0.5)
    if len(order) <= NAMED:
        beside.set_yticks(places, [f"z{dimension + 1}" for dimension in order])
        beside.tick_params(axis="y", length=0, labelsize="small" if len(order) > 16 else "medium")
    else:
        beside.yaxis.set_major_locator(MaxNLocator(integer=True))
    beside.set_xlabel("standard\ndeviation")
