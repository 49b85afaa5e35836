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
from pyrovae.evaluation.estimates import arviz, importance, netcdf
from pyrovae.evaluation.estimates.effort import Effort
from pyrovae.evaluation.estimates.k_hat_warning import k_hat_threshold, k_hat_warning
from pyrovae.evaluation.estimates.netcdf import COLUMNS
from pyrovae.evaluation.estimates.pareto_k_hat import pareto_smoothed
from pyrovae.evaluation.estimates.standard_error import mean_and_error, monte_carlo_error
from pyrovae.evaluation.estimates.table import table, worst
from pyrovae.evaluation.estimates.trust import least_trusted_first, trusted

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    r"""Importance-sampling estimates of :math:`\log p(x)`, a number a datum, in nats; NumPy arrays of float64.

    .. math::
        \log \hat p(x) = \log \frac{1}{K} \sum_{k=1}^{K} w_k, \qquad
        w_k = \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    Attributes:
        log_p: the estimates, shape ``(N,)``, in nats.
        standard_error: their Monte Carlo standard errors by the delta method, in nats.
        effective_sample_size: :math:`(\sum w)^2 / \sum w^2`, of ``num_samples``.
        k_hat: Pareto k-hats of the weights; NaN where none could be fitted: :func:`~.pareto_k_hat.pareto_smoothed`.
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
        discrete_latents: whether a latent of the model is discrete, so that equal weights are no proof of a good guide.
        effort: what estimates to a tolerance took, each of draws of its own number; None where all are of ``num_samples``.
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
    discrete_latents: bool = False
    effort: Effort | None = None

    @classmethod
    def from_log_weights(cls, log_weights: Tensor, num_particles: Sequence[int] = ()) -> Self:
        """Compute the estimates from log weights of shape ``(K, N)``, with the bounds of each of ``num_particles``."""
        log_weights = log_weights.detach().double()
        bounds = {count: importance.importance_weighted_bound(log_weights, count).cpu().numpy() for count in num_particles}
        columns: dict[str, Any] = {name: column.cpu().numpy() for name, column in _columns(log_weights).items()}
        return cls(**columns, num_samples=len(log_weights), bounds=bounds)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the estimates of several parts of the data, which share all else."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        bounds = {count: np.concatenate([part.bounds[count] for part in parts]) for count in parts[0].bounds}
        return replace(parts[0], **columns, bounds=bounds)

    def with_rows(self, rows: NDArray[np.bool_], other: Self) -> Self:
        """Replace the estimates of some data, in their order, by those that ``other`` has from a defensive mixture."""
        columns = {name: getattr(self, name).copy() for name in COLUMNS}
        for name, column in columns.items():
            column[rows] = getattr(other, name)
        return replace(self, **columns, defensive=rows)

    def worst(self, number: int = 10) -> "DataFrame":
        """Tabulate the data that are least to be trusted, a row each: :func:`~.trust.least_trusted_first`."""
        return worst(self, least_trusted_first(self.k_hat, self.trusted)[:number])

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the data, in nats."""
        return float(self.log_p.mean())

    @property
    def bits_per_dimension(self) -> float | None:
        r"""Mean code length :math:`-\log_2 p(x) / D` of discrete data of D numbers each; None for other data."""
        return -self.mean / (self.discrete_dimensions * math.log(2.0)) if self.discrete_dimensions else None

    @property
    def data_error(self) -> float:
        r"""Standard error of the mean from the choice of data, :math:`\mathrm{sd}(\log p) / \sqrt N`, in nats."""
        return mean_and_error(self.log_p)[1]

    @property
    def monte_carlo_error(self) -> float:
        r"""Standard error of the mean from the draws, :math:`\sqrt{\sum_n \mathrm{se}_n^2} / N`, in nats."""
        return float(monte_carlo_error(self.standard_error))

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Interval of log p(x) of each datum, two arrays ``(N,)``, as good as its k-hat: :func:`~.importance.interval`."""
        number = self.effort.draws if self.effort else self.num_samples
        return importance.interval(self.log_p, self.standard_error, number, level)

    @property
    def threshold(self) -> float:
        """The largest k-hat to trust at this number of draws: :func:`~.k_hat_warning.k_hat_threshold`."""
        return k_hat_threshold(self.num_samples if self.effort is None else int(self.effort.draws.max()))

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """Whether each estimate can be trusted, shape ``(N,)``, with or without a k-hat: :func:`~.trust.trusted`."""
        if self.effort:
            return self.effort.trusted
        return trusted(self.k_hat, self.effective_sample_size, self.num_samples, self.discrete_latents, self.defensive)

    @property
    def share_untrusted(self) -> float:
        """The share of the data that are not :attr:`trusted`."""
        return float((~self.trusted).mean())

    @property
    def warning(self) -> str | None:
        """Warning to read before the numbers, where more than one datum in twenty is not :attr:`trusted`; else None."""
        return self.effort.warning if self.effort else k_hat_warning(self.k_hat, self.trusted, self.threshold)

    def gap(self, particles: int) -> Array:
        r"""Compute the gap :math:`\log \hat p(x) - \mathrm{IWAE}_K` of each datum, in nats.

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
        """Convert to an ``arviz.InferenceData`` (ArviZ 0.x) or ``xarray.DataTree`` (1.x), group ``importance_sampling``."""
        return arviz.as_tree(netcdf.to_dataset(self), netcdf.GROUP)

    def to_netcdf(self, path: str | Path) -> None:
        """Write the estimates to a file that ``arviz.from_netcdf`` and :meth:`from_netcdf` read."""
        arviz.write(netcdf.to_dataset(self), netcdf.GROUP, path)

    @classmethod
    def from_netcdf(cls, path: str | Path) -> Self:
        """Read what :meth:`to_netcdf`, or ``to_netcdf`` of :meth:`to_arviz`, wrote.

        Raises:
            InputError: for a file that is damaged, or holds anything else.
        """
        return cls(**netcdf.read_fields(path))


def _columns(log_weights: Tensor) -> dict[str, Tensor]:
    """Compute the numbers of each datum, ``(K, N) -> (N,)``, by name."""
    smoothed, k_hat = pareto_smoothed(log_weights)
    jackknife, jackknife_error = importance.jackknife(log_weights)
    return {
        "log_p": importance.log_mean_weight(log_weights),
        "standard_error": importance.standard_error(log_weights),
        "effective_sample_size": importance.effective_sample_size(log_weights),
        "k_hat": k_hat,
        "smoothed": importance.log_mean_weight(smoothed),
        "jackknife": jackknife,
        "jackknife_error": jackknife_error,
    }
