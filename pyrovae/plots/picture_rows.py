"""A figure of rows of pictures with names at the left and below."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyrovae.plots.axes import given_or_new
from pyrovae.plots.tiles import as_pictures, gap, show, tile


def picture_rows(means: Tensor, rows: Sequence[str], columns: Sequence[str], ax: Axes | None) -> Axes:
    """Draw pictures of shape ``(R, C, *event_shape)``, with R names of rows and C of columns."""
    flat = as_pictures(means.flatten(0, 1))
    ax = show(tile(flat, means.shape[1]), given_or_new(ax))
    height, width = (length + gap(flat) for length in flat.shape[1:3])
    ax.set_yticks(height * np.arange(len(rows)) + (flat.shape[1] - 1) / 2, rows)
    ax.set_xticks(width * np.arange(len(columns)) + (flat.shape[2] - 1) / 2, columns)
    ax.tick_params(length=0)
    return ax
