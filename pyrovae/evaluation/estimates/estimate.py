"""Estimates of log p(x) for many data, with their errors and the diagnostics that say whether to trust them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.evaluation.estimates import arviz, importance
from pyrovae.evaluation.estimates.pareto import pareto_smoothed
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.evaluation.estimates.table import table

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import Dataset

    from pyrovae.untrusted.netcdf import Numbers

Array = NDArray[np.float64]
GROUP = "importance_sampling"
"""The group of an ArviZ file that holds an estimate."""
COLUMNS = ("log_p", "standard_error", "effective_sample_size", "k_hat", "smoothed", "jackknife", "jackknife_error")
"""What there is a number of for each datum; files of version 0.1 end with the k-hat."""
ATTRIBUTES = ("num_samples", "discrete_dimensions", "rounding")
"""What there is one of."""
TOLERATED_SHARE = 0.05
"""At most this share of data with a k-hat above the threshold passes without a warning.

A k-hat is itself an estimate, with a standard deviation of 0.1 at 5,000 draws and of 0.15 at 500, so that a few of many
data are above the threshold wherever k comes near it. In trials with Gaussian proposals in 1 to 50 dimensions, at 500 and
5,000 draws, 95% intervals for log p(x) covered at 91% or more where the share was below this; where more than a third of
the data were above the threshold they covered at 41 to 87%.
"""
UNTRUSTED = "the mean of log p(x) is probably too low and its standard errors are not to be trusted"
"""What heavy tails of the weights mean."""


class ImportanceSamplingWarning(UserWarning):
    """The importance weights of many data have tails too heavy for their mean to be trusted."""


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    r"""Importance-sampling estimates of :math:`\log p(x)`, a number a datum, in nats.

    .. math::
        \log \hat p(x) = \log \frac{1}{K} \sum_{k=1}^{K} w_k, \qquad
        w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    Attributes:
        log_p: the estimates, shape ``(N,)``, in nats.
        standard_error: their Monte Carlo standard errors by the delta method, in nats.
        effective_sample_size: :math:`(\sum w)^2 / \sum w^2`, of ``num_samples``.
        k_hat: Pareto k-hats of the weights; NaN where none could be fitted (:func:`~.pareto.pareto_smoothed` says when).
        smoothed: :math:`\log \hat p(x)` from Pareto smoothed weights, in nats: of less variance, and a little more bias.
        jackknife: :math:`\log \hat p(x)` corrected for its bias of order 1 / K (:func:`~.importance.jackknife`), in nats.
        jackknife_error: the standard error of that.
        num_samples: the number of draws :math:`K` a datum.
        bounds: the bound :math:`\mathrm{IWAE}_K` by its number of particles, each ``(N,)`` in nats, estimated without
            bias from the same weights; ``bounds[1]`` is the ELBO.
        discrete_dimensions: how many observed numbers one datum has, where all are discrete; None otherwise.
        defensive: which data were estimated by draws from the guide mixed with a wider one and with the prior, shape
            ``(N,)``; None where none were. Their bounds, where there are any, are the guide's all the same.
        rounding: mean and mean absolute error of log p(x), in nats, that comes from networks which compute in another
            precision, measured on the first data from the same noise; None where they compute in their own.
    """

    log_p: Array
    standard_error: Array
    effective_sample_size: Array
    k_hat: Array
    smoothed: Array
    jackknife: Array
    jackknife_error: Array
    num_samples: int
    bounds: dict[int, Array]
    discrete_dimensions: int | None = None
    defensive: NDArray[np.bool_] | None = None
    rounding: tuple[float, float] | None = None

    @classmethod
    def from_log_weights(cls, log_weights: Tensor, num_particles: Sequence[int] = ()) -> Self:
        """The estimates that log weights of shape ``(K, N)`` hold, with the bounds of each of ``particles``."""
        log_weights = log_weights.detach().double()
        smoothed, k_hat = pareto_smoothed(log_weights)
        jackknife, jackknife_error = importance.jackknife(log_weights)
        columns = {
            "log_p": importance.log_mean_weight(log_weights),
            "standard_error": importance.standard_error(log_weights),
            "effective_sample_size": importance.effective_sample_size(log_weights),
            "k_hat": k_hat,
            "smoothed": importance.log_mean_weight(smoothed),
            "jackknife": jackknife,
            "jackknife_error": jackknife_error,
        }
        arrays: dict[str, Any] = {name: column.cpu().numpy() for name, column in columns.items()}
        return cls(
            **arrays,
            num_samples=len(log_weights),
            bounds={
                count: importance.importance_weighted_bound(log_weights, count).cpu().numpy() for count in num_particles
            },
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """One estimate of the data of all parts, which share all but the data."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        bounds = {count: np.concatenate([part.bounds[count] for part in parts]) for count in parts[0].bounds}
        return replace(parts[0], **columns, bounds=bounds)

    def with_rows(self, rows: NDArray[np.bool_], other: Self) -> Self:
        """These estimates, but those of some data from the mixture that ``other`` is of, in their order."""
        columns = {name: getattr(self, name).copy() for name in COLUMNS}
        for name, column in columns.items():
            column[rows] = getattr(other, name)
        return replace(self, **columns, defensive=rows)

    def worst(self, number: int = 10) -> "DataFrame":
        """The data least to be trusted, a row each: those with the largest k-hats, those without one last."""
        from pandas import DataFrame

        order = np.argsort(-self.k_hat.clip(max=np.finfo(float).max), kind="stable")[:number]  # NaN come last
        columns = {name: getattr(self, name)[order] for name in ("k_hat", *COLUMNS[:3])}
        return DataFrame(columns, index=order).rename_axis("datum")

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the data, in nats."""
        return float(self.log_p.mean())

    @property
    def bits_per_dimension(self) -> float | None:
        r"""The code length :math:`-\log_2 p(x) / D`, mean over the data, of discrete data of D numbers; None of others."""
        return -self.mean / (self.discrete_dimensions * math.log(2.0)) if self.discrete_dimensions else None

    @property
    def data_error(self) -> float:
        r"""Standard error of the mean from the choice of data, :math:`\mathrm{sd}(\log p) / \sqrt N`, in nats."""
        return mean_and_error(self.log_p)[1]

    @property
    def monte_carlo_error(self) -> float:
        r"""Standard error of the mean from the draws, :math:`\sqrt{\sum_n \mathrm{se}_n^2} / N`, in nats."""
        return float(np.sqrt(np.square(self.standard_error).sum()) / len(self.log_p))

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Of each datum's log p(x), two arrays ``(N,)``, to be trusted where the k-hat is: :func:`~.importance.interval`."""
        return importance.interval(self.log_p, self.standard_error, self.num_samples, level)

    @property
    def threshold(self) -> float:
        r"""The largest k-hat to trust at this number of draws, :math:`\min(1 - 1 / \log_{10} K, 0.7)`.

        Source: Vehtari, Simpson, Gelman, Yao and Gabry (arXiv:1507.02646).
        """
        return min(1.0 - 1.0 / math.log10(self.num_samples), 0.7) if self.num_samples > 1 else -math.inf

    @property
    def share_above(self) -> float:
        """The share of the data whose k-hat exceeds the threshold; a k-hat that could not be fitted does not."""
        return float((self.k_hat > self.threshold).mean())

    @property
    def warning(self) -> str | None:
        """The sentence to read before the numbers, where more than one datum in twenty has too large a k-hat."""
        if self.share_above <= TOLERATED_SHARE:
            return None
        return (
            f"Pareto k-hat exceeds {self.threshold:.2f} for {self.share_above:.1%} of the data: {UNTRUSTED}; draw more "
            "samples, or use a richer guide, or annealed importance sampling"
        )

    def gap(self, particles: int) -> Array:
        r"""How far the bound is below the estimate, :math:`\log \hat p(x) - \mathrm{IWAE}_K` of each datum, in nats.

        Raises:
            InputError: for a number of particles that has no bound here.
        """
        if particles not in self.bounds:
            raise InputError(
                f"there is no bound at {particles} particles, only at {sorted(self.bounds)}; "
                f"pass num_particles=({particles}, ...) to log_likelihood"
            )
        with np.errstate(invalid="ignore"):
            return self.log_p - self.bounds[particles]

    def __str__(self) -> str:
        return table(self)

    def to_arviz(self) -> Any:
        """An ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x) with the group ``importance_sampling``."""
        return arviz.as_tree(self._dataset(), GROUP)

    def to_netcdf(self, path: str | Path) -> None:
        """Write the estimates to a file that ``arviz.from_netcdf`` and :meth:`from_netcdf` read."""
        arviz.write(self._dataset(), GROUP, path)

    @classmethod
    def from_netcdf(cls, path: str | Path) -> Self:
        """Read what :meth:`to_netcdf`, or ``to_netcdf`` of :meth:`to_arviz`, wrote.

        Raises:
            InputError: for a file that is damaged, or holds anything else.
        """
        from pyrovae.untrusted.netcdf import read_numbers

        try:
            return cls._of(read_numbers(Path(path), GROUP, (*COLUMNS, "particles", "bound", "defensive"), ATTRIBUTES))
        except InputError:
            raise
        except Exception as error:  # damage ends in errors of a dozen types
            raise InputError(
                f"{path} cannot be read ({type(error).__name__}: {error}); expected estimates as to_netcdf writes them: "
                "estimate again"
            ) from error

    @classmethod
    def _of(cls, found: "Numbers") -> Self:
        arrays, attributes = found
        shape = arrays["log_p"].shape
        made = cls(
            **{name: arrays.get(name, np.full(shape, math.nan)) for name in COLUMNS},
            num_samples=int(attributes["num_samples"].item()),
            bounds=dict(zip(arrays["particles"].tolist(), arrays["bound"], strict=True)),
            discrete_dimensions=int(attributes["discrete_dimensions"].item())
            if "discrete_dimensions" in attributes
            else None,
            defensive=arrays["defensive"].astype(bool) if "defensive" in arrays else None,
            rounding=tuple(attributes["rounding"].tolist()) if "rounding" in attributes else None,  # pyright: ignore
        )
        made._require_whole()
        return made

    def _require_whole(self) -> None:
        """Raise a ValueError where the numbers are not those of so many data."""
        columns = [*(getattr(self, name) for name in COLUMNS), *self.bounds.values()]
        if any(column.dtype.kind not in "iuf" or column.shape != (len(self.log_p),) for column in columns):
            raise ValueError("there is not one number a datum in every column")
        if not len(self.log_p) or (self.defensive is not None and self.defensive.shape != self.log_p.shape):
            raise ValueError("there are no data, or what is said of them is not of each")
        if any(type(count) is not int or not 0 < count < 2**53 for count in (self.num_samples, *self.bounds)):
            raise ValueError("a number of draws or particles is no positive whole number")
        if (self.discrete_dimensions or 0) < 0 or (self.rounding is not None and len(self.rounding) != 2):
            raise ValueError("its attributes are not those of estimates")

    def _dataset(self) -> "Dataset":
        from xarray import Dataset

        columns = {name: ("datum", getattr(self, name)) for name in COLUMNS}
        bounds = np.reshape(list(self.bounds.values()), (len(self.bounds), len(self.log_p)))
        coordinates = {"datum": np.arange(len(self.log_p)), "particles": np.array(list(self.bounds), dtype=int)}
        variables = columns | {"bound": (("particles", "datum"), bounds)}
        attributes: dict[str, Any] = {"num_samples": self.num_samples, "unit": "nats"}
        if self.discrete_dimensions:
            attributes["discrete_dimensions"] = self.discrete_dimensions
        if self.rounding:
            attributes["rounding"] = list(self.rounding)
        if self.defensive is not None:
            variables["defensive"] = ("datum", self.defensive.astype(np.int8))
        return Dataset(variables, coordinates, attributes)
