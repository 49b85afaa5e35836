"""Latent space in two dimensions, for a figure."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError


class LatentMap(NamedTuple):
    """Two coordinates a datum, shape ``(N, 2)``, and what to call the axes."""

    coordinates: NDArray[np.floating]
    axes: tuple[str, str]


def latent_map(means: Tensor | np.ndarray) -> LatentMap:
    """Two coordinates of each point in latent space: as they are in two dimensions, else their principal components.

    Args:
        means: what :func:`posterior_means` returns, shape ``(N, D)``.

    Raises:
        InputError: for fewer than two dimensions.
    """
    points = np.asarray(means)
    if points.ndim != 2 or points.shape[1] < 2:
        raise InputError(
            f"means have shape {points.shape}; expected (N, D) with D of at least 2: draw a histogram of one dimension"
        )
    return LatentMap(points, ("z1", "z2")) if points.shape[1] == 2 else _principal_components(points)


def _principal_components(points: np.ndarray) -> LatentMap:
    from sklearn.decomposition import PCA  # takes a second to import

    components = PCA(2, svd_solver="covariance_eigh")
    coordinates = components.fit_transform(points)
    first, second = (f"component {n} ({share:.0%})" for n, share in enumerate(components.explained_variance_ratio_, 1))
    return LatentMap(coordinates, (first, second))
