"""A figure of data in latent space, in the plane."""

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from torch import Tensor

from pyrovae.evaluation import LatentMap
from pyrovae.plots.axes import as_array, given_or_new, quiet
from pyrovae.plots.palette import CLASSES, FIRST


def latent_map(
    coordinates: LatentMap | Tensor | np.ndarray, labels: Tensor | np.ndarray | None = None, ax: Axes | None = None
) -> Axes:
    """Draw each datum at its place in latent space, coloured by its label.

    Up to ten different labels get a colour each, a legend, and their names at the medians of their points; more of them
    (a measured number, say) get a colour bar.

    Args:
        coordinates: what :func:`pyrovae.evaluation.latent_map` returns, or coordinates of shape ``(N, 2)``.
        labels: numbers of shape ``(N,)``.
        ax: where to draw; by default on a new figure.
    """
    if not isinstance(coordinates, LatentMap):
        coordinates = LatentMap(as_array(coordinates), ("z1", "z2"))
    ax = quiet(given_or_new(ax))
    draw = partial(ax.scatter, *coordinates.coordinates.T, s=9, linewidths=0, alpha=0.8)
    if labels is None:
        draw(color=FIRST)
    elif len(np.unique(as_array(labels))) <= len(CLASSES):
        _draw_classes(ax, draw, as_array(labels))
        _write_names(ax, coordinates.coordinates, as_array(labels))
    else:
        bar = ax.figure.colorbar(draw(c=as_array(labels)), ax=ax, label="label", aspect=40)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    ax.set(xlabel=coordinates.axes[0], ylabel=coordinates.axes[1])
    ax.set_aspect("equal", "datalim")
    return ax


def _draw_classes(ax: Axes, draw: Callable[..., PathCollection], labels: np.ndarray) -> None:
    names, classes = np.unique(labels, return_inverse=True)
    draw(color=[CLASSES[index] for index in classes])
    dot = partial(Line2D, [], [], marker="o", linestyle="")
    handles = [dot(color=colour, label=str(name)) for name, colour in zip(names, CLASSES, strict=False)]
    ax.legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handletextpad=0.1)


def _write_names(ax: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """Write each label at the median of its points, so that similar colours are told apart."""
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for name in np.unique(labels):
        x, y = np.median(points[labels == name], 0)
        ax.text(x, y, str(name), ha="center", va="center", weight="bold", path_effects=halo)
