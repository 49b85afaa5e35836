r"""The estimates of :math:`\log p(x)` by annealed importance sampling, with their errors and diagnostics."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.schedule import Schedule
from pyrovae.evaluation.estimates import importance
from pyrovae.evaluation.estimates.k_hat_warning import TOLERATED_SHARE, UNTRUSTED
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.evaluation.estimates.table import quantile_names, quantiles, warned

Array = NDArray[np.float64]
COUNTING_CHAINS = 0.5
"""The share of a datum's chains that must count, by their effective sample size, for its interval to be trusted.

In the trials of ``python -m benchmarks coverage`` 95% intervals cover at less than 92% only where fewer count for more than
one datum in twenty.
"""
FEWEST_CHAINS = 3
"""Fewest chains of which half are more than one; of fewer, as many must count as if there were three."""


@dataclass(frozen=True, eq=False)
class AnnealedLikelihood:
    r"""Estimates of :math:`\log p(x)` of N data by annealed importance sampling, NumPy arrays in nats.

    Attributes:
        log_weights: of each chain and datum, shape ``(chains, N)``; the mean of the weights estimates p(x) without bias.
        acceptance: the share of accepted transitions at each temperature between, shape ``(temperatures - 1,)``.
        temperatures: the number of temperatures after the first.
        start: the density that the chains began with.
        schedule: the schedule of temperatures.
        steps: the leapfrog steps of a transition.
        failed_moves: the number of transitions that were rejected because the programs raised a numerical error on the way
            (a matrix without a Cholesky factor, say) or returned NaN; the chain then stayed where it was.
    """

    log_weights: Array
    acceptance: Array
    temperatures: int
    start: Start
    schedule: Schedule
    steps: int
    failed_moves: int = 0

    @property
    def log_p(self) -> Array:
        r"""The estimate :math:`\log \frac1K \sum_k w_k` of each datum, shape ``(N,)``: in the mean below log p(x)."""
        return importance.log_mean_weight(torch.from_numpy(self.log_weights)).numpy()

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the data, in nats."""
        return float(self.log_p.mean())

    @property
    def standard_error(self) -> Array:
        """The Monte Carlo standard error of each datum's estimate, by the delta method, shape ``(N,)``, in nats."""
        return importance.standard_error(torch.from_numpy(self.log_weights)).numpy()

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """The Monte Carlo interval of each datum's log p(x), two arrays ``(N,)``: :func:`~.importance.interval`."""
        return importance.interval(self.log_p, self.standard_error, self.num_chains, level)

    @property
    def data_error(self) -> float:
        """The standard error of the mean from the choice of data, in nats."""
        return mean_and_error(self.log_p)[1]

    @property
    def monte_carlo_error(self) -> float:
        """The standard error of the mean from the chains, in nats."""
        return float(np.sqrt(np.square(self.standard_error).sum()) / len(self.log_p))

    @property
    def num_chains(self) -> int:
        """The number of chains a datum."""
        return len(self.log_weights)

    @property
    def effective_sample_size(self) -> Array:
        """The effective number of chains, shape ``(N,)``; near 1 the chains have not met, and the estimate is too low."""
        return importance.effective_sample_size(torch.from_numpy(self.log_weights)).numpy()

    @property
    def share_unmet(self) -> float:
        """The share of the data for which fewer than half of the chains count, or one alone, which has met no other."""
        fewest = COUNTING_CHAINS * max(self.num_chains, FEWEST_CHAINS)
        return float((~(self.effective_sample_size >= fewest)).mean())

    @property
    def warning(self) -> str | None:
        """The sentence to read before the numbers: :func:`unmet_warning`."""
        return unmet_warning(self.share_unmet, self.num_chains)

    def __str__(self) -> str:
        chains, data = self.log_weights.shape
        lines = [
            f"log p(x) of {data:,} data by {chains} annealed chains each, {self.temperatures:,} temperatures, in nats",
            "",
            f"  {'mean':<22}{self.mean:>12.4f}",
            f"  {'± from the data':<22}{self.data_error:>12.4f}",
            f"  {'± from the chains':<22}{self.monte_carlo_error:>12.4f}",
            *failure_rows(self.failed_moves, chains * data * (self.temperatures - 1)),
            "",
            quantile_names(),
            quantiles("effective sample size", self.effective_sample_size, ".1f"),
            quantiles("standard error", self.standard_error, ".3f"),
            quantiles("acceptance", self.acceptance, ".2f"),
        ]
        return "\n".join([*lines, "", warned(self.warning)] if self.warning else lines)


def failure_rows(failed: int, moves: int) -> list[str]:
    """The row of a table that counts failed moves; none where no move failed."""
    return [f"  {'moves that failed':<22}{failed:>12,} of {moves:,}"] if failed else []


def unmet_warning(share: float, num_chains: int) -> str | None:
    """The warning for the share of data for which fewer than half of the chains count; None up to one in twenty."""
    if share <= TOLERATED_SHARE:
        return None
    if num_chains < FEWEST_CHAINS:
        found, remedy = "a single chain counts", "take more chains"
    else:
        found, remedy = "fewer than half of the chains count", "take more temperatures, or start from the guide"
    return f"{found} for {share:.1%} of the data: {UNTRUSTED}; {remedy}"
