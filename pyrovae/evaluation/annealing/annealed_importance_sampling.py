r"""The log likelihood :math:`\log p(x)` of any pair by annealed importance sampling."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.annealing.adaptation import Plan, Schedule, plan
from pyrovae.evaluation.annealing.hmc import Chains
from pyrovae.evaluation.annealing.path import Path, Start
from pyrovae.evaluation.estimates import importance
from pyrovae.evaluation.estimates.k_hat_warning import TOLERATED_SHARE, UNTRUSTED
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.evaluation.estimates.table import quantile_names, quantiles, warned
from pyrovae.runtime.batches import Columns, DataLike, as_data, batches
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.seeds import seed_of, seeded, set_seed
from pyrovae.runtime.sharding import in_shards

Array = NDArray[np.float64]
MET = 0.5
"""The share of a datum's chains that must count, by their effective sample size, for its interval to be believed.

In the trials of ``python -m benchmarks coverage`` 95% intervals cover at less than 92% only where fewer count for more than
one datum in twenty.
"""
WORTHWHILE = 2**22
"""The number of chains, data, temperatures and steps multiplied from which on recording and fusing is worth its time."""


@dataclass(frozen=True, eq=False)
class AnnealedLikelihood:
    r"""Estimates of :math:`\log p(x)` by annealed importance sampling, a number a datum, in nats.

    Attributes:
        log_weights: of each chain and datum, shape ``(chains, N)``; the mean of the weights estimates p(x) without bias.
        acceptance: the share of accepted transitions at each temperature between, shape ``(temperatures - 1,)``.
        temperatures: the number of temperatures after the first.
        start: what the chains begin as draws of.
        schedule: the schedule.
        steps: the leapfrog steps of a transition.
        failed_moves: how many transitions the programs could not follow to their end, since they raised a numerical error
            there (a matrix without a Cholesky factor, say) or gave no number; the chain then stayed where it was.
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
        """The estimates, shape ``(N,)``: stochastic lower bounds, below log p(x) in the mean."""
        return importance.log_mean_weight(torch.from_numpy(self.log_weights)).numpy()

    @property
    def standard_error(self) -> Array:
        """Of each estimate, from the spread of its chains by the delta method, shape ``(N,)``."""
        return importance.standard_error(torch.from_numpy(self.log_weights)).numpy()

    @property
    def effective_sample_size(self) -> Array:
        """How many of the chains count, shape ``(N,)``; near 1 the chains have not met, and the estimate is too low."""
        return importance.effective_sample_size(torch.from_numpy(self.log_weights)).numpy()

    @property
    def num_chains(self) -> int:
        """The number of chains a datum."""
        return len(self.log_weights)

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the data, in nats."""
        return float(self.log_p.mean())

    @property
    def data_error(self) -> float:
        """Standard error of the mean from the choice of data, in nats."""
        return mean_and_error(self.log_p)[1]

    @property
    def monte_carlo_error(self) -> float:
        """Standard error of the mean from the chains, in nats."""
        return float(np.sqrt(np.square(self.standard_error).sum()) / len(self.log_p))

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Of each datum's log p(x), two arrays ``(N,)``: :func:`~.importance.interval`."""
        return importance.interval(self.log_p, self.standard_error, self.num_chains, level)

    @property
    def share_unmet(self) -> float:
        """The share of the data of whose chains fewer than half count."""
        return float((self.effective_sample_size < MET * self.num_chains).mean())

    @property
    def warning(self) -> str | None:
        """The sentence to read before the numbers: :func:`unmet_warning`."""
        return unmet_warning(self.share_unmet)

    def __str__(self) -> str:
        chains, data = self.log_weights.shape
        lines = [
            f"log p(x) of {data:,} data by {chains} annealed chains each, {self.temperatures:,} temperatures, in nats",
            "",
            f"  {'mean':<22}{self.mean:>12.4f}",
            f"  {'± from the data':<22}{self.data_error:>12.4f}",
            f"  {'± from the chains':<22}{self.monte_carlo_error:>12.4f}",
            *failures(self.failed_moves, chains * data * (self.temperatures - 1)),
            "",
            quantile_names(),
            quantiles("effective sample size", self.effective_sample_size, ".1f"),
            quantiles("standard error", self.standard_error, ".3f"),
            quantiles("acceptance", self.acceptance, ".2f"),
        ]
        return "\n".join([*lines, "", warned(self.warning)] if self.warning else lines)


def failures(failed: int, moves: int) -> list[str]:
    """The row of a table that counts the moves that failed, where there are any."""
    return [f"  {'moves that failed':<22}{failed:>12,} of {moves:,}"] if failed else []


def unmet_warning(share: float) -> str | None:
    """What to say of this share of data of whose chains fewer than half count; none is said of one in twenty or less."""
    if share <= TOLERATED_SHARE:
        return None
    return (
        f"fewer than half of the chains count for {share:.1%} of the data: {UNTRUSTED}; take more temperatures, or start "
        "from the guide"
    )


@takes_pair
def annealed_importance_sampling(
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
) -> AnnealedLikelihood:
    r"""Estimate :math:`\log p(x)` of each datum by chains that go from a known density to the posterior.

    .. math::
        \log w = \sum_{t=1}^{T} (\beta_t - \beta_{t-1}) \big(\log p(x, z_{t-1}) - \log f_0(z_{t-1})\big), \qquad
        z_0 \sim f_0, \quad z_t \sim K_{\beta_t}(\cdot \mid z_{t-1}), \qquad E[w] = p(x)

    with :math:`0 = \beta_0 < \dots < \beta_T = 1` and Hamiltonian transitions :math:`K_\beta` that leave :math:`f_0^{1 -
    \beta}\, p(x, \cdot)^\beta` invariant. Their step sizes, per datum and temperature, their scales, per latent dimension
    too, and an adaptive schedule come from pilot chains (:mod:`pyrovae.evaluation.annealing.adaptation`), which follow a
    fifth as many temperatures, 50 to 500. From the prior it owes nothing to the encoder, and is a second opinion on
    :func:`pyrovae.log_likelihood`; from the guide it needs fewer temperatures where the guide is good. Latents with a
    constraint move on the real numbers that are mapped to it. Where the programs fail on the way (a matrix has no Cholesky
    factor, a density is no number), a move is rejected and counted, for that chain alone. Where there is a process group of
    ``torch.distributed``, its processes share the batches of data, and each has the whole result.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs, whose latents are continuous. From the prior,
            only the names and shapes of the guide's sites matter.
        data: as :func:`pyrovae.log_likelihood` takes them.
        num_chains: the number of chains a datum.
        temperatures: the number T of temperatures after the first.
        start: what :math:`f_0` is, ``prior`` or ``guide``.
        schedule: ``sigmoid``, ``linear``, or ``adaptive``: each temperature costs as much of the effective sample size, for
            each datum by itself.
        steps: the leapfrog steps of a transition, each a gradient of the model.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        compile: record the programs and fuse their operations; if null, where there is enough to do.
        progress: whether to show a progress bar over temperatures.
        max_rows: the most chains times data that run together, which bounds the memory.

    Returns:
        :class:`AnnealedLikelihood`; print it for a table.

    Raises:
        InputError: for numbers below one; for latents that are discrete, lie on a sphere, or whose support depends on other
            latents; from the prior, where that is improper; from the guide, where that has a ``Delta`` for a latent, or
            sites beside the latents; where the programs fail at draws that chains begin with; and for a pair or data that
            cannot be weighed.

    References:
        | Annealed Importance Sampling (Neal, 2001); https://arxiv.org/abs/physics/9803008
        | On the Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov & Grosse, 2017)
        | https://arxiv.org/abs/1611.04273
    """
    model, guide = programs(pair)
    settings = Annealing(num_chains, temperatures, start, schedule, steps, max_rows)
    with settings.paths(model, guide, data, seed, device, compile, progress) as (paths, bar):

        def work(index: int, item: tuple[Path, int]) -> Leg:
            """One batch, with noise of its own."""
            path, kept = item
            set_seed(seed_of(seed, index), path.batch.x.device)
            return settings.forwards(path, settings.plan(path), bar).of(kept)

        parts = in_shards(paths, work)
    log_weights, acceptance, failed = (torch.cat(values, 1) for values in zip(*parts, strict=True))
    shares, number = acceptance.mean(1).numpy(), int(failed.sum())
    return AnnealedLikelihood(log_weights.numpy(), shares, temperatures, start, schedule, steps, number)


class Leg(NamedTuple):
    """What chains have done that went along a path.

    Attributes:
        log_weights: shape ``(K, B)``, float64.
        acceptance: the share of them that moved, shape ``(T - 1, B)``, float64.
        failed: how many moves of each failed, shape ``(K, B)``.
    """

    log_weights: Tensor
    acceptance: Tensor
    failed: Tensor

    def of(self, data: int) -> "Leg":
        """Of the first of the data, on the CPU."""
        return Leg(*(values[:, :data].cpu() for values in self))


@dataclass(frozen=True)
class Annealing:
    """What chains in both directions are told.

    Raises:
        InputError: for what cannot be run.
    """

    num_chains: int
    temperatures: int
    start: Start
    schedule: Schedule
    steps: int
    max_rows: int
    legs: int = 1

    def __post_init__(self) -> None:
        require_positive(num_chains=self.num_chains, temperatures=self.temperatures, steps=self.steps)
        require_positive(max_rows=self.max_rows)
        for name, words in (("start", Start), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(words):
                expected = ", ".join(map(repr, get_args(words)))
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {expected}")

    @contextmanager
    def paths(
        self,
        model: Program,
        guide: Program,
        data: DataLike,
        seed: int,
        device: torch.device | str | None,
        compile: bool | None,
        progress: bool,
    ) -> Iterator[tuple[Iterator[tuple[Path, int]], tqdm]]:
        """Paths of the data in batches of one shape, each with its number of data; and a bar that counts temperatures."""
        columns = as_data(data)
        device = home(columns, device)
        work = self.legs * len(columns) * self.num_chains * self.temperatures * self.steps
        compile = work >= WORTHWHILE if compile is None else compile
        number = math.ceil(len(columns) / max(1, self.max_rows // self.num_chains))
        batch_size = math.ceil(len(columns) / number)
        total = self.legs * math.ceil(len(columns) / batch_size) * self.temperatures
        with evaluating(model, guide), seeded(seed, device), tqdm(total=total, disable=not progress) as bar:
            yield self._paths(Pair(model, guide), columns, batch_size, device, compile), bar

    def _paths(
        self, pair: Pair, data: Columns, batch_size: int, device: torch.device, compile: bool
    ) -> Iterator[tuple[Path, int]]:
        path = None
        for batch in batches(data, batch_size, device=device):
            full = batch.filled_up(batch_size)
            if path is None:
                pair.meet(full)
                path = Path(pair, full, self.num_chains, self.start)
                if compile:
                    path.compile()
            else:
                path = path.of(full)
            yield path, len(batch)

    def plan(self, path: Path) -> Plan:
        """What pilot chains find."""
        return plan(path, self.temperatures, self.schedule, self.steps)

    def forwards(self, path: Path, plan: Plan, bar: tqdm) -> Leg:
        """Chains from the first density on."""
        return self._along(path, path.start(), plan, range(1, self.temperatures + 1), bar)

    def backwards(self, path: Path, u: Tensor, plan: Plan, bar: tqdm) -> Leg:
        """Chains that go back, through the same kernels, from draws ``u`` of the posterior."""
        return self._along(path, u, plan, range(self.temperatures, 0, -1), bar)

    def _along(self, path: Path, u: Tensor, plan: Plan, times: range, bar: tqdm) -> Leg:
        chains = Chains(path, u, self.steps)
        state = chains.state
        log_weights, moved = torch.zeros_like(state.log_f0, dtype=torch.float64), []
        for t in times:
            part = plan.betas[t] - plan.betas[t - 1]
            log_weights = log_weights + part * (state.log_f1.double() - state.log_f0.double())
            bar.update()
            if t != times[-1]:
                between = t if times.step > 0 else t - 1
                chains.move(plan.betas[between], plan.kernel(between))
                moved.append(chains.accepted.double().mean(0))
        shares = torch.stack(moved) if moved else log_weights.new_zeros(0, log_weights.shape[1])
        return Leg(log_weights, shares, chains.failed)
