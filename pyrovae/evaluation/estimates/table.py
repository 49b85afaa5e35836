"""A table of estimates to read in a terminal."""

import math
from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pyrovae.evaluation.estimates.effort import Effort
from pyrovae.evaluation.estimates.netcdf import COLUMNS
from pyrovae.evaluation.estimates.standard_error import mean_and_error

if TYPE_CHECKING:
    from pandas import DataFrame

QUANTILES = (0.05, 0.5, 0.95)


class Tabulated(Protocol):
    """The attributes of :class:`~.estimate.LogLikelihood` that a table shows."""

    @property
    def log_p(self) -> np.ndarray: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def data_error(self) -> float: ...
    @property
    def monte_carlo_error(self) -> float: ...
    @property
    def jackknife(self) -> np.ndarray: ...
    @property
    def smoothed(self) -> np.ndarray: ...
    @property
    def bits_per_dimension(self) -> float | None: ...
    @property
    def rounding(self) -> tuple[float, float] | None: ...
    @property
    def bounds(self) -> Mapping[int, np.ndarray]: ...
    def gap(self, particles: int) -> np.ndarray: ...
    @property
    def effective_sample_size(self) -> np.ndarray: ...
    @property
    def k_hat(self) -> np.ndarray: ...
    @property
    def threshold(self) -> float: ...
    @property
    def trusted(self) -> np.ndarray: ...
    @property
    def defensive(self) -> np.ndarray | None: ...
    @property
    def warning(self) -> str | None: ...
    @property
    def effort(self) -> Effort | None: ...


def table(estimate: Tabulated) -> str:
    """Format the mean with its two errors, the bounds, effective sample sizes, k-hats and the warning, if any."""
    effort = [] if estimate.effort is None else estimate.effort.lines()
    parts = [_mean(estimate), effort, _bounds(estimate), _diagnostics(estimate)]
    if estimate.warning:
        parts.append([warned(estimate.warning)])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def warned(sentence: str) -> str:
    """Format a warning as a paragraph of a table."""
    return fill(f"Warning: {sentence}.", 78, initial_indent="  ", subsequent_indent="  ")


def _mean(estimate: Tabulated) -> list[str]:
    each = " each" if estimate.effort is None else ""
    return [
        f"log p(x) of {len(estimate.log_p):,} data {method(estimate)}{each}, in nats",
        "",
        f"  {'mean':<22}{estimate.mean:>12.4f}",
        f"  {'± from the data':<22}{estimate.data_error:>12.4f}",
        f"  {'± from the draws':<22}{estimate.monte_carlo_error:>12.4f}",
        _bias_corrected(estimate),
        f"  {'Pareto smoothed':<22}{estimate.smoothed.mean():>12.4f}",
        *_bits(estimate),
        *_rounding(estimate),
    ]


def method(estimate: Tabulated) -> str:
    """Say of how many draws a datum an estimate is, or to which tolerance."""
    if estimate.effort is None:
        return f"by {estimate.num_samples:,} draws"
    return f"to ±{estimate.effort.tolerance:g} at {100 * estimate.effort.level:g}%"


def _bias_corrected(estimate: Tabulated) -> str:
    """Write the mean of the jackknife, which some data do not have, as where one draw outweighs all others."""
    unknown = int(np.isnan(estimate.jackknife).sum())
    if unknown:
        return f"  {'bias-corrected':<22}{'unknown':>12}   (no jackknife for {unknown:,} of the data)"
    return f"  {'bias-corrected':<22}{estimate.jackknife.mean():>12.4f}   (jackknife)"


def _bits(estimate: Tabulated) -> list[str]:
    bits = estimate.bits_per_dimension
    return [] if bits is None else [f"  {'bits per dimension':<22}{bits:>12.4f}"]


def _rounding(estimate: Tabulated) -> list[str]:
    if estimate.rounding is None:
        return []
    error, size = estimate.rounding
    return [f"  {'error of rounding':<22}{error:>+12.1e}   ({size:.1e} in size; of the first data)"]


def _bounds(estimate: Tabulated) -> list[str]:
    rows = []
    for particles, bound in estimate.bounds.items():
        gap, error = mean_and_error(estimate.gap(particles))
        name = "ELBO" if particles == 1 else f"IWAE, {particles:,} particles"
        rows.append(f"  {name:<22}{bound.mean():>12.4f}{gap:>12.4f} ± {error:.4f}")
    return [f"  {'bound':<22}{'mean':>12}{'below log p(x)':>20}", *rows] if rows else []


def _diagnostics(estimate: Tabulated) -> list[str]:
    fitted = ~np.isnan(estimate.k_hat)
    above = f"   {(estimate.k_hat > estimate.threshold).mean():.1%} above {estimate.threshold:.2f}"
    lines = [
        quantile_names(),
        quantiles("effective sample size", estimate.effective_sample_size, ".1f"),
        quantiles("Pareto k-hat", estimate.k_hat[fitted], ".2f") + above,
    ]
    if estimate.defensive is not None:
        lines.append(f"  {estimate.defensive.sum():,} data by the guide mixed with a wider one and with the prior")
    if missing := (~fitted).sum():
        lines.append(f"  no k-hat could be fitted for {missing:,} data (too few draws, or tied weights),")
        lines.append(f"  of which {estimate.trusted[~fitted].sum():,} are trusted")
    return lines


def quantile_names() -> str:
    """Format the header over rows of quantiles."""
    return f"  {'':<22}" + "".join(f"{f'{level:.0%}':>12}" for level in QUANTILES)


def quantiles(name: str, values: np.ndarray, form: str) -> str:
    """Format a row of quantiles."""
    levels = np.quantile(values, QUANTILES, method="nearest") if len(values) else [math.nan] * len(QUANTILES)
    return f"  {name:<22}" + "".join(f"{level:>12{form}}" for level in levels)


def worst(estimate: Tabulated, order: np.ndarray) -> "DataFrame":
    """Tabulate some of the data in an order, a row each."""
    from pandas import DataFrame

    columns = {name: getattr(estimate, name)[order] for name in ("k_hat", *COLUMNS[:3])}
    if estimate.effort is not None:
        columns |= {name: getattr(estimate.effort, name)[order] for name in ("proposal", "draws", "met")}
    return DataFrame(columns, index=order).rename_axis("datum")
