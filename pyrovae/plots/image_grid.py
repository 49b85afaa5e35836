"""A figure of pictures in rows and columns."""

import math

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyrovae.plots.axes import given_or_new
from pyrovae.plots.tiles import as_pictures, show, tile


def image_grid(x: Tensor | np.ndarray, ax: Axes | None = None, columns: int | None = None) -> Axes:
    """Draw data that are pictures, row by row.

    Args:
        x: shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``; 0 is black and 1 (255 for bytes) is white, unless
            values beyond stretch the scale.
        ax: where to draw; by default on a new figure.
        columns: pictures in a row; by default as many as there are rows.

    Raises:
        InputError: for data of another shape.
    """
    pictures = as_pictures(x)
    return show(tile(pictures, columns or math.ceil(math.sqrt(len(pictures)))), given_or_new(ax))
