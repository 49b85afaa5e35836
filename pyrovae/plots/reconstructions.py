"""A figure of data and their reconstructions."""

import math

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.plots.axes import given_or_new
from pyrovae.plots.tiles import as_pictures, gap, show, tile


def reconstructions(x: Tensor | np.ndarray, x_mean: Tensor | np.ndarray, ax: Axes | None = None, columns: int = 10) -> Axes:
    """Draw each datum above its reconstruction.

    Args:
        x: shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        x_mean: what :func:`pyrovae.evaluation.reconstructions` returns for it, of the same shape.
        ax: where to draw; by default on a new figure.
        columns: pairs side by side.

    Raises:
        InputError: for data of another shape, and where the two shapes differ.
    """
    if tuple(x.shape) != tuple(x_mean.shape):
        raise InputError(f"x has shape {tuple(x.shape)} and x_mean {tuple(x_mean.shape)}; expected the same of both")
    columns = min(columns, len(x))
    rows = np.stack([_rows(as_pictures(x), columns), _rows(as_pictures(x_mean), columns)], 1)
    pictures = rows.reshape(-1, *rows.shape[3:])
    ax = show(tile(pictures, columns), given_or_new(ax))
    centres = (pictures.shape[1] + gap(pictures)) * np.arange(2 * len(rows)) + pictures.shape[1] / 2 - 0.5
    ax.set_yticks(centres, ["data", "reconstruction"] * len(rows))
    ax.tick_params(length=0)
    return ax


def _rows(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Arrange pictures in rows, shape ``(R, columns, H, W, ...)``, the last one filled with NaN."""
    missing = -len(pictures) % columns
    nothing = np.full((missing, *pictures.shape[1:]), math.nan)
    return np.concatenate([pictures, nothing]).reshape(-1, columns, *pictures.shape[1:])
