r"""All that this library asks of ArviZ, whose two generations differ: Pareto k-hats, and estimates as its data trees.

ArviZ is imported where it is used, since importing it takes seconds.
"""

import math
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xarray import Dataset

FEWEST_DRAWS = 30
"""A tail is a fifth of so few draws, and fewer than six of them have no first quartile above their smallest."""
EQUAL = 1e-4
"""A tail whose weights differ by less than this ratio holds rounding errors: the proposal is the posterior."""
TIED = 1e-6
"""Weights that differ by less than this ratio are the same weight, computed twice."""
NOTHING = 1e-300
"""A weight that is this part of the largest; the fit divides by such weights."""


def pareto_k_hats(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""The shape :math:`\hat k` of the generalised Pareto distribution fitted to the largest weights of each datum.

    The weights have :math:`1 / k` moments: :math:`k < 1/2` gives them a variance, and for :math:`k` above
    :math:`\min(1 - 1 / \log_{10} K, 0.7)` the mean of K of them is not to be trusted.

    Args:
        log_weights: shape ``(K, N)``, in nats.

    Returns:
        Shape ``(N,)``. NaN where there is no tail to fit: with fewer than 30 draws, and where the largest weights are
        ties, as they are all equal when the guide is the exact posterior. Infinite where one draw outweighs the rest of
        the tail beyond what a float can say.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, Pareto Smoothed Importance Sampling (arXiv:1507.02646); the
    fit is ArviZ's.
    """
    if len(log_weights) < FEWEST_DRAWS:
        return np.full(log_weights.shape[1], math.nan)
    return np.array([_k_hat(column) for column in np.ascontiguousarray(log_weights.T)])


def _k_hat(log_weights: NDArray[np.float64]) -> float:
    from arviz_stats.base.array import array_stats

    cutoff, smallest, quartile = _tail(log_weights)
    if quartile < NOTHING:
        return math.inf
    if not (1.0 - cutoff > EQUAL and quartile - smallest > TIED * quartile):
        return math.nan
    # ArviZ's PSIS was made for leave-one-out cross-validation and negates what it is handed; it goes on to smooth the
    # weights, which overflow where k is large
    with np.errstate(all="ignore"):
        return float(array_stats.psislw(-log_weights)[1])


def _tail(log_weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of the weights over their largest: the one below the tail, the tail's smallest, and its first quartile.

    A fit divides by the quartile, so that ties or zeros there give no k-hat or, in ArviZ before 1.0, a wrong one.
    """
    if not np.isfinite(largest := log_weights.max()):
        return math.nan, math.nan, math.nan
    count = _tail_size(len(log_weights))
    ranks = [-count - 1, -count, int(count / 4 + 0.5) - 1 - count]
    chosen = np.partition(log_weights, [len(log_weights) + rank for rank in ranks])[ranks]
    cutoff, smallest, quartile = np.exp(chosen - largest)
    return cutoff, smallest, quartile


def _tail_size(draws: int) -> int:
    r"""The number of largest weights to fit, :math:`\min(K / 5, 3 \sqrt K)`, rounded as ArviZ does."""
    return int(3 * math.sqrt(draws)) if draws > 225 else draws // 5


def as_tree(dataset: "Dataset", group: str) -> Any:
    """An ``arviz.InferenceData`` (ArviZ 0.x) or an ``xarray.DataTree`` (1.x) with this one group."""
    if int(version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        return DataTree.from_dict({group: dataset})
    return _inference_data(dataset, group)


def _inference_data(dataset: "Dataset", group: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
        import arviz
    return arviz.InferenceData(**{group: dataset})  # pyright: ignore[reportArgumentType]


def write(dataset: "Dataset", group: str, path: str | Path) -> None:
    """Write one group to a netCDF file, which ``arviz.from_netcdf`` of either generation reads."""
    dataset.to_netcdf(path, mode="w", group=group, engine="h5netcdf")


def read(path: str | Path, group: str) -> "Dataset":
    """Read one group of a netCDF file that :func:`write` or either generation of ArviZ wrote."""
    from xarray import load_dataset

    return load_dataset(path, group=group, engine="h5netcdf")
