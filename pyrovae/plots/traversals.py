"""A figure of latent traversals."""

from matplotlib.axes import Axes

from pyrovae.evaluation import Traversal
from pyrovae.plots.picture_rows import picture_rows


def traversals(traversal: Traversal, ax: Axes | None = None) -> Axes:
    """Draw a dimension a row: the pictures decoded as that dimension moves, from left to right.

    Args:
        traversal: what :func:`pyrovae.evaluation.traverse` returns for data that are pictures, of shape ``(H, W)``,
            ``(1, H, W)`` or ``(3, H, W)``.
        ax: where to draw; by default on a new figure.

    Raises:
        InputError: for data of another shape.
    """
    rows = [f"z{dimension + 1}" for dimension in traversal.dimensions]
    of_prior = traversal.over == "prior"
    columns = [_percent(level) if of_prior else f"{level:.2g}" for level in traversal.levels.tolist()]
    ax = picture_rows(traversal.means, rows, [column.replace("-", "\N{MINUS SIGN}") for column in columns], ax)
    ax.set_xlabel("quantile of the prior, in percent" if of_prior else "standard deviations of the posterior from its mean")
    return ax


def _percent(level: float) -> str:
    return f"{100.0 * level:.1f}" if min(level, 1.0 - level) < 0.05 else f"{100.0 * level:.0f}"
