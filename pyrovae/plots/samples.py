"""A figure of generated pictures."""

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyrovae.plots.image_grid import image_grid


def samples(x_mean: Tensor | np.ndarray, ax: Axes | None = None) -> Axes:
    r"""Draw generated pictures: the means of :math:`p(x \mid z)` for draws z of the prior, or draws of x themselves.

    Args:
        x_mean: shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for data of another shape.
    """
    return image_grid(x_mean, ax)
