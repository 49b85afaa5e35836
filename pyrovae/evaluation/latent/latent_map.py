"""Latent space in two dimensions, for a figure."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError


class LatentMap(NamedTuple):
    """Two coordinates a datum, a NumPy array of shape ``(N, 2)``, and the names of the axes."""

    coordinates: NDArray[np.floating]
    axes: tuple[str, str]


def latent_map(means: Tensor | np.ndarray, method: Literal["tsne", "pca"] = "tsne") -> LatentMap:
    """Project points in latent space to two dimensions; points of two dimensions stay as they are.

    Args:
        means: what :func:`posterior_means` returns, shape ``(N, D)``.
        method: for more dimensions, ``tsne`` keeps neighbours together (its axes have no meaning; seconds for a few
            thousand points), ``pca`` takes the two directions of largest variance.

    Raises:
        InputError: for fewer than two dimensions, and for another method.
    """
    points = np.asarray(means)
    if points.ndim != 2 or points.shape[1] < 2:
        raise InputError(
            f"means have shape {points.shape}; expected (N, D) with D of at least 2: draw a histogram of one dimension"
        )
    if method not in ("tsne", "pca"):
        raise InputError(f"method is {method!r}; expected 'tsne' or 'pca'")
    if points.shape[1] == 2:
        return LatentMap(points, ("z1", "z2"))
    return _principal_components(points) if method == "pca" else _neighbour_embedding(points)


def _principal_components(points: np.ndarray) -> LatentMap:
    from sklearn.decomposition import PCA  # takes a second to import

    components = PCA(2, svd_solver="covariance_eigh")
    coordinates = components.fit_transform(points)
    first, second = (f"component {n} ({share:.0%})" for n, share in enumerate(components.explained_variance_ratio_, 1))
    return LatentMap(coordinates, (first, second))


def _neighbour_embedding(points: np.ndarray) -> LatentMap:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(points) - 1) / 3)
    coordinates = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    return LatentMap(coordinates, ("t-SNE 1", "t-SNE 2"))
