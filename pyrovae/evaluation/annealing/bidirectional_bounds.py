r"""The bounds of :math:`\log p(x)` by bidirectional Monte Carlo, with their errors."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.evaluation.annealing.annealed_likelihood import failure_rows
from pyrovae.evaluation.estimates import importance
from pyrovae.evaluation.estimates.standard_error import mean_and_error

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bidirectional:
    r"""Bounds of :math:`\log p(x)` of N data that the model itself has drawn, NumPy arrays in nats.

    Attributes:
        forward: log weights of chains towards the posterior, shape ``(chains, N)``.
        reverse: log weights of chains that begin at the latents that the datum was drawn from, and go back.
        temperatures: the number of temperatures after the first.
        data: the data that the model has drawn, shape ``(N, *event_shape)``.
        failed_moves: the number of failed transitions, as in :class:`AnnealedLikelihood`, both ways together.
    """

    forward: Array
    reverse: Array
    temperatures: int
    data: Array
    failed_moves: int = 0

    @property
    def lower(self) -> Array:
        r"""The lower bound :math:`\log \frac1K \sum_k w_k`, shape ``(N,)``: in the mean below log p(x)."""
        return importance.log_mean_weight(torch.from_numpy(self.forward)).numpy()

    @property
    def upper(self) -> Array:
        r"""The upper bound :math:`-\log \frac1K \sum_k 1 / w_k`, shape ``(N,)``: in the mean above log p(x)."""
        return -importance.log_mean_weight(-torch.from_numpy(self.reverse)).numpy()

    @property
    def log_p(self) -> Array:
        """The estimate of each datum, midway between :attr:`lower` and :attr:`upper`, shape ``(N,)``."""
        return (self.lower + self.upper) / 2.0

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the data, in nats."""
        return float(self.log_p.mean())

    @property
    def standard_error(self) -> Array:
        """The Monte Carlo standard error of each :attr:`log_p`, by the delta method, shape ``(N,)``, in nats.

        It is that of the chains of both directions, and does not include the distance between the bounds, of which
        :attr:`gap` is the mean; :meth:`interval` includes both.
        """
        errors = (importance.standard_error(torch.from_numpy(each)) for each in (self.forward, -self.reverse))
        return torch.stack([*errors]).square().sum(0).sqrt().numpy() / 2.0

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        r"""The interval of each datum's log p(x), two arrays ``(N,)``, from both directions.

        .. math:: E[\log w] \le \log p(x) \le E[-\log w^{-1}]

        The ends are the means over chains, moved outwards by their error at this level by Student's t. These bounds are
        looser than :attr:`lower` and :attr:`upper`, but log weights, sums of many steps, are nearly normal, and their error
        can be trusted. That of a log-mean weight cannot where chains have not met, and a few of them have all the weight.
        NaN for a single chain, and where a weight is zero.
        """
        low, _ = _interval_of_mean(self.forward, level)
        _, high = _interval_of_mean(self.reverse, level)
        return low, high

    @property
    def gap(self) -> tuple[float, float]:
        """The mean over the data of upper minus lower bound, and its standard error, in nats."""
        return mean_and_error(self.upper - self.lower)

    def __str__(self) -> str:
        chains, data = self.forward.shape
        rows = [("lower bound", mean_and_error(self.lower)), ("upper bound", mean_and_error(self.upper)), ("gap", self.gap)]
        gap, error = self.gap
        return "\n".join(
            [
                f"log p(x) of {data:,} data drawn from the model by {chains} annealed chains each way, "
                f"{self.temperatures:,} temperatures, in nats",
                "",
                *(f"  {name:<22}{mean:>12.4f} ± {deviation:.4f}" for name, (mean, deviation) in rows),
                *failure_rows(self.failed_moves, 2 * chains * data * (self.temperatures - 1)),
                "",
                f"  On data like these the estimate is less than {gap + 2 * error:.3g} nats too low in the mean; on other",
                "  data it is so far as they are no harder.",
            ]
        )


def _interval_of_mean(log_weights: Array, level: float) -> tuple[Array, Array]:
    """The ends of Student's interval of the mean over chains, two arrays ``(N,)``."""
    number = len(log_weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(log_weights.var(0) / (number - 1))
    reach = error * importance.student(number, level)
    return log_weights.mean(0) - reach, log_weights.mean(0) + reach
