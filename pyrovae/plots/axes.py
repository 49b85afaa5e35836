"""The axes of a figure: those handed in, or those of a new figure."""

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor


def given_or_new(ax: Axes | None) -> Axes:
    """Return the axes handed in, or else those of a new pyplot figure, which a notebook shows by itself."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def quiet(ax: Axes) -> Axes:
    """Remove the upper and the right side of the frame."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def as_array(values: Tensor | np.ndarray) -> np.ndarray:
    """Convert a tensor, on any device, or an array to an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
