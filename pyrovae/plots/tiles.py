"""Pictures side by side on one canvas."""

import math

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.plots.axes import as_array


def as_pictures(x: Tensor | np.ndarray) -> np.ndarray:
    """Convert data ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)`` to pictures ``(N, H, W)`` or ``(N, H, W, 3)``.

    Bytes are divided by 255, so that white is 1.

    Raises:
        InputError: for another shape.
    """
    pictures = as_array(x)
    if pictures.dtype == np.uint8:
        pictures = pictures / 255
    if pictures.ndim == 4 and pictures.shape[1] == 3:
        return np.moveaxis(pictures, 1, -1).astype(float)
    if pictures.ndim == 4 and pictures.shape[1] == 1:
        return pictures[:, 0].astype(float)
    if pictures.ndim == 3:
        return pictures.astype(float)
    raise InputError(
        f"x has shape {pictures.shape}; expected pictures (N, H, W), (N, 1, H, W) or (N, 3, H, W): "
        "reshape the data, or draw them with matplotlib's own functions"
    )


def tile(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Tile pictures of shape ``(N, H, W, ...)`` row by row on one canvas, with gaps of NaN between them."""
    rows = math.ceil(len(pictures) / columns)
    height, width = (length + gap(pictures) for length in pictures.shape[1:3])
    canvas = np.full((rows * height, columns * width, *pictures.shape[3:]), math.nan)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas[: -gap(pictures), : -gap(pictures)]


def gap(pictures: np.ndarray) -> int:
    """Compute the pixels between two pictures: a fourteenth of their height."""
    return max(1, pictures.shape[1] // 14)


def show(canvas: np.ndarray, ax: Axes) -> Axes:
    """Draw a canvas in grey or in colour, 0 black and 1 white, stretched only if its values are beyond."""
    low, high = min(0.0, np.nanmin(canvas)), max(1.0, np.nanmax(canvas))
    levels = (canvas - low) / (high - low)
    colours = levels if canvas.ndim == 3 else np.repeat(levels[..., None], 3, -1)
    ax.imshow(np.nan_to_num(colours, nan=1.0), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax
