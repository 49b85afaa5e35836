r"""The error of annealed importance sampling, between a lower and an upper bound."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.evaluation.annealing.adaptation import Schedule
from pyrovae.evaluation.annealing.annealed_importance_sampling import Annealing, failures
from pyrovae.evaluation.annealing.path import Path, Start
from pyrovae.evaluation.estimates import importance
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.runtime.batches import DataLike
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.seeds import seed_of, set_seed
from pyrovae.runtime.sharding import in_shards

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Bidirectional:
    r"""Bounds of :math:`\log p(x)` of data that the model itself has drawn, a number a datum, in nats.

    Attributes:
        forward: log weights of chains towards the posterior, shape ``(chains, N)``.
        reverse: log weights of chains that begin at the latents that the datum was drawn from, and go back.
        temperatures: the number of temperatures after the first.
        data: what the model has drawn, shape ``(N, *event_shape)``.
        failed_moves: how many transitions, both ways together, the programs could not follow to their end.
    """

    forward: Array
    reverse: Array
    temperatures: int
    data: Array
    failed_moves: int = 0

    @property
    def lower(self) -> Array:
        r""":math:`\log \frac1K \sum_k w_k`, shape ``(N,)``: in the mean below log p(x)."""
        return importance.log_mean_weight(torch.from_numpy(self.forward)).numpy()

    @property
    def upper(self) -> Array:
        r""":math:`-\log \frac1K \sum_k 1 / w_k`, shape ``(N,)``: in the mean above log p(x)."""
        return -importance.log_mean_weight(-torch.from_numpy(self.reverse)).numpy()

    @property
    def gap(self) -> tuple[float, float]:
        """The mean over the data of upper less lower, and its standard error, in nats."""
        return mean_and_error(self.upper - self.lower)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        r"""Of each datum's log p(x), two arrays ``(N,)``, from :math:`E[\log w] \le \log p(x) \le E[-\log w^{-1}]`.

        The means over chains, moved outwards by their error at this level by Student's t. These bounds are looser than
        :attr:`lower` and :attr:`upper`, but log weights, sums of many steps, are nearly normal, and their error is
        to be trusted. That of a log-mean weight is not where chains have not met, and a few of them carry all. NaN for a
        single chain, and where a weight is zero.
        """
        low, _ = _mean_over_chains(self.forward, level)
        _, high = _mean_over_chains(self.reverse, level)
        return low, high

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
                *failures(self.failed_moves, 2 * chains * data * (self.temperatures - 1)),
                "",
                f"  On data like these the estimate is less than {gap + 2 * error:.3g} nats too low in the mean; on other",
                "  data it is so far as they are no harder.",
            ]
        )


@takes_pair
def bidirectional(
    pair: PairLike,
    data: DataLike,
    num_chains: int = 16,
    temperatures: int = 1000,
    *,
    start: Start = "prior",
    schedule: Schedule = "sigmoid",
    steps: int = 10,
    seed: int = 0,
    device: torch.device | str | None = None,
    compile: bool | None = None,
    progress: bool = False,
    max_rows: int = MAX_ROWS,
) -> Bidirectional:
    r"""Bracket :math:`\log p(x)` of simulated data: how far to trust annealed importance sampling with these settings.

    .. math::
        E[\log w] \le \log p(x) \le E[-\log w^{-1}], \qquad
        w \text{ of chains from } f_0, \quad w^{-1} \text{ of chains back from } z \sim p(z \mid x)

    A datum that the model draws comes with the latents that it was drawn from: an exact draw of its posterior. From there
    the reverse chains go through the same transitions, last to first. In place of each datum given the model draws one (for
    its context, if there is any); the gap between the two bounds bounds the error of
    :func:`annealed_importance_sampling` on them, and says as much of real data as the model is right about these.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model observes what it is
            called with, and its latents are continuous.
        data: as many data as are to be drawn, and their contexts; their values do not matter.
        num_chains: the number of chains a datum, each way.
        temperatures: the number T of temperatures after the first.
        start: what :math:`f_0` is, ``prior`` or ``guide``.
        schedule: ``sigmoid``, ``linear`` or ``adaptive``.
        steps: the leapfrog steps of a transition.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        compile: record the programs and fuse their operations; if null, where there is enough to do.
        progress: whether to show a progress bar over temperatures.
        max_rows: the most chains times data that run together, which bounds the memory.

    Returns:
        :class:`Bidirectional`; print it for a table.

    Raises:
        InputError: as :func:`annealed_importance_sampling` does, and where the model observes something else than what it is
            called with.

    References:
        | Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015)
        | https://arxiv.org/abs/1511.02543
        | On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov & Grosse, 2017)
        | https://arxiv.org/abs/1611.04273
    """
    model, guide = programs(pair)
    settings = Annealing(num_chains, temperatures, start, schedule, steps, max_rows, legs=2)
    with settings.paths(model, guide, data, seed, device, compile, progress) as (paths, bar):

        def work(index: int, item: tuple[Path, int]) -> tuple[Tensor, ...]:
            """One batch, with noise of its own."""
            template, kept = item
            set_seed(seed_of(seed, index), template.batch.x.device)
            path, u = template.dream()
            made = settings.plan(path)
            forward = settings.forwards(path, made, bar).of(kept)
            reverse = settings.backwards(path, u, made, bar).of(kept)
            failed = forward.failed + reverse.failed
            return forward.log_weights.T, reverse.log_weights.T, path.batch.x[:kept].cpu(), failed.T

        parts = in_shards(paths, work)
    forward, reverse, drawn, failed = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    return Bidirectional(forward.T, reverse.T, temperatures, drawn, int(failed.sum()))


def _mean_over_chains(log_weights: Array, level: float) -> tuple[Array, Array]:
    """Two arrays ``(N,)``: the ends of Student's interval of the mean."""
    number = len(log_weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(log_weights.var(0) / (number - 1))
    reach = error * importance.student(number, level)
    return log_weights.mean(0) - reach, log_weights.mean(0) + reach
