"""Rows of pictures with names at the left and below."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pyrovae.plots.tiles import gap, show, tile


def picture_rows(pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str], ax: Axes) -> Axes:
    """Draw pictures of shape ``(R, C, H, W, ...)``, with R names of rows and C of columns."""
    flat = pictures.reshape(-1, *pictures.shape[2:])
    ax = show(tile(flat, pictures.shape[1]), ax)
    height, width = (length + gap(flat) for length in flat.shape[1:3])
    ax.set_yticks(height * np.arange(len(rows)) + (flat.shape[1] - 1) / 2, rows)
    ax.set_xticks(width * np.arange(len(columns)) + (flat.shape[2] - 1) / 2, columns)
    ax.tick_params(length=0)
    return ax
