"""A figure of interpolations between data."""

from matplotlib.axes import Axes

from pyrovae.evaluation import Interpolation
from pyrovae.plots.picture_rows import picture_rows


def interpolations(interpolation: Interpolation, ax: Axes | None = None) -> Axes:
    """Draw a path a row: the pictures decoded between two latents, from left to right.

    Args:
        interpolation: what :func:`pyrovae.evaluation.interpolate` returns for data that are pictures, of shape ``(H, W)``,
            ``(1, H, W)`` or ``(3, H, W)``.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for data of another shape.
    """
    shares = [f"{share:.0%}" for share in interpolation.shares.tolist()]
    ax = picture_rows(interpolation.means, [""] * len(interpolation.means), ["start", *shares[1:-1], "end"], ax)
    ax.set_xlabel("share of the way through latent space")
    return ax
