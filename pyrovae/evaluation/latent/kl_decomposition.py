r"""The average KL as what a latent tells of its datum, and how far all latents together are from the prior."""

import math
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.distributions import Delta
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.sites import Site, with_values
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.latent.aggregate_density import DrawsAlone, log_aggregate_density, log_density, places
from pyrovae.evaluation.latent.kl_by_dimension import kl_by_dimension
from pyrovae.evaluation.latent.weighted_batches import Weighed, weighed
from pyrovae.objectives.elbo import kl_terms
from pyrovae.runtime.batches import Batch, Columns, DataLike, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.seeds import seeded

Array = NDArray[np.float64]
TRIED = 64
"""The number of data on which the programs are tried before."""
MAX_PAIRS = 2**16
"""Draws times data of one run of the guide alone: more than of both programs, as no decoder runs."""
WHAT = "the split of the KL"


@dataclass(frozen=True, eq=False)
class KLDecomposition:
    r"""The split of the average KL of N data, in nats.

    .. math::
        \frac1N \sum_n KL(q(z \mid x_n) \,\|\, p(z))
        = \underbrace{\frac1N \sum_n KL(q(z \mid x_n) \,\|\, q(z))}_{I_q(n;\, z)\; \le\; \ln N} + KL(q(z) \,\|\, p(z)),
        \qquad q(z) = \frac1N \sum_n q(z \mid x_n)

    Attributes:
        kl: draws of :math:`KL(q(z \mid x_n) \| p(z))`, shape ``(S, N)``: without spread where there is a formula.
        information: draws of :math:`KL(q(z \mid x_n) \| q(z))`, shape ``(S, N)``.
        per_dimension: the average KL of each coordinate of the latent, shape ``(D,)``, which add up to the average KL;
            None where model or guide have no density for each coordinate.
        no_dimensions: why ``per_dimension`` is None.
    """

    kl: Array
    information: Array
    per_dimension: Array | None
    no_dimensions: str | None = None

    @property
    def average_kl(self) -> tuple[float, float]:
        """The average KL and its Monte Carlo standard error; the latter is NaN where there is one draw a datum."""
        return _mean_and_error(self.kl)

    @property
    def mutual_information(self) -> tuple[float, float]:
        """The mutual information of latent and index of the datum, and its Monte Carlo standard error."""
        return _mean_and_error(self.information)

    @property
    def marginal_kl(self) -> tuple[float, float]:
        """The KL of the aggregate posterior from the prior, the difference of the other two, and its standard error."""
        return _mean_and_error(self.kl - self.information)

    @property
    def ceiling(self) -> float:
        r""":math:`\ln N`, above which N data can show no mutual information."""
        return math.log(self.kl.shape[1])

    def __str__(self) -> str:
        draws, data = self.kl.shape
        rows = [
            ("average KL", self.average_kl),
            ("= mutual information", self.mutual_information),
            ("+ marginal KL", self.marginal_kl),
        ]
        return "\n".join(
            [
                f"KL from the prior of {data:,} data, {draws:,} draws each, in nats",
                "",
                *(f"  {name:<22}{mean:>12.4f} ± {error:.4f}" for name, (mean, error) in rows),
                "",
                f"  {'ceiling ln N':<22}{self.ceiling:>12.4f}   of the mutual information",
                *self._dimensions(),
            ]
        )

    def _dimensions(self) -> list[str]:
        if self.per_dimension is None:
            text = f"No KL for each dimension: {self.no_dimensions}."
            return ["", fill(text, 78, initial_indent="  ", subsequent_indent="  ")]
        levels = np.quantile(self.per_dimension, (0.0, 0.5, 1.0))
        header = "".join(f"{name:>12}" for name in ("least", "median", "most"))
        row = "".join(f"{level:>12.4f}" for level in levels)
        return ["", f"  {f'of {len(self.per_dimension):,} dimensions':<22}{header}", f"  {'KL':<22}{row}"]


@takes_pair
def kl_decomposition(
    pair: PairLike,
    data: DataLike,
    num_samples: int = 10,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    max_rows: int = MAX_ROWS,
    max_pairs: int = MAX_PAIRS,
) -> KLDecomposition:
    r"""Split the average KL into mutual information and the KL of the aggregate posterior from the prior.

    .. math::
        I_q(n; z) \approx \frac1{NS} \sum_{n, s} \log \frac{q(z_{sn} \mid x_n)}{\frac1N \sum_m q(z_{sn} \mid x_m)}, \qquad
        z_{sn} \sim q(z \mid x_n)

    Every draw is scored by the guide at every datum, :math:`S N^2` densities. The mixture is that of all data given, so that
    :math:`q(z)` has no error: the three numbers are estimated for these data as a population of their own. The average KL is
    taken from formulas where torch has them, and the KL of the aggregate posterior is the difference. What the draws of the
    KL are off the formula is a control variate of both, whose coefficient, found from the same draws, leaves a bias of the
    order 1 / (N S); without a formula there is no control variate, and no bias at all.

    Of N data drawn from a larger population the average KL is that of the population in the mean, and the mutual information
    is too low, the KL of the aggregate posterior too high by as much: a mixture of N has less entropy in the mean than the
    mixture of all. The mutual information is at most :math:`\ln N`; where it comes near that, more data would show more.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs. The guide's sites may depend on
            each other, and its density can be had at given latents.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset``, or a mapping as :func:`pyrovae.fit` takes.
        num_samples: the number S of draws a datum.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        max_rows: the most draws times data of one run of both programs.
        max_pairs: the most draws times data of one run of the guide alone, which scores the ones at the others. Draws and
            sums are kept, so that memory grows with :math:`S N`, and not with :math:`S N^2`.

    Returns:
        :class:`KLDecomposition`; print it for a table, ``plots.kl_per_dimension`` draws a part of it.

    Raises:
        InputError: for numbers below 1; for a guide that draws something beside the latents, puts a latent at a point, or is
            random beyond its sites; for a prior that is not the same for all data; and for a pair that cannot be weighed
            (see :func:`pyrovae.engine.log_weights.log_weights`).

    References:
        | ELBO surgery: yet another way to carve up the variational evidence lower bound (Hoffman & Johnson, 2016)
        | http://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf
    """
    model, guide = programs(pair)
    require_positive(num_samples=num_samples, max_rows=max_rows, max_pairs=max_pairs)
    columns = as_data(data)
    device = home(columns, device)
    module = Pair(model, guide)
    with torch.no_grad(), evaluating(model, guide), seeded(seed, device):
        reason = _try(module, columns, device)
        stream = weighed(module, columns, num_samples, device, max_rows, WHAT)
        parts = [_Part(each, by_dimension=reason is None) for each in stream]
        aggregate = log_aggregate_density(module, columns, [part.latents for part in parts], device, max_pairs)
    kl, drawn, proposal = (torch.cat(column, 1) for column in zip(*(part.columns for part in parts), strict=True))
    information = proposal - torch.cat([q.view_as(part.kl) for q, part in zip(aggregate, parts, strict=True)], 1)
    dimensions = torch.stack([part.dimensions for part in parts]).sum(0) / len(columns)
    return KLDecomposition(
        kl=kl.cpu().numpy(),
        information=_controlled(information, drawn - kl).cpu().numpy(),
        per_dimension=None if reason else dimensions.cpu().numpy(),
        no_dimensions=reason,
    )


def _controlled(values: Tensor, control: Tensor) -> Tensor:
    """Draws of the same mean and less variance, given what has mean 0: all of shape ``(S, N)``."""
    variance = control.square().sum()
    slope = ((values - values.mean()) * control).sum() / variance
    return values - slope * control if variance > 0 else values


def _mean_and_error(draws: Array) -> tuple[float, float]:
    """The mean of ``(S, N)`` draws, and its standard error where the N data are given and the draws are not."""
    count, data = draws.shape
    if count == 1:
        return float(draws.mean()), math.nan
    return float(draws.mean()), float(np.sqrt(draws.var(0, ddof=1).sum() / count) / data)


class _Part:
    """What is kept of a batch.

    Attributes:
        kl: draws of the KL, from formulas where there are some, shape ``(S, B)``.
        columns: these, the same without formulas, and the log densities of the draws given their own data.
        dimensions: the KL of each coordinate, summed over the batch, shape ``(D,)``; nothing where there is no such.
        latents: the draws.
    """

    def __init__(self, part: Weighed, by_dimension: bool) -> None:
        weights = part.weights
        self.kl = sum(kl_terms(weights).values(), torch.zeros_like(weights.total)).double()
        self.columns = self.kl, (weights.log_proposal - weights.log_prior).double(), weights.log_proposal.double()
        self.dimensions = kl_by_dimension(weights).double().mean(0).sum(0) if by_dimension else self.kl.new_zeros(0)
        self.latents = DrawsAlone.of(part.draws, weights)


def _try(pair: Pair, data: Columns, device: torch.device) -> str | None:
    """Refuse a pair that has no such split; returns why there is no KL for each dimension, if there is none."""
    batch, draws, weights = next(weighed(pair, data, 1, device, TRIED, WHAT))
    _require_latents_alone(weights)
    _require_repeatable(pair, batch, draws, weights)
    _require_one_prior(pair, batch, draws, weights)
    try:
        kl_by_dimension(weights)
    except InputError as error:
        return str(error)
    return None


def _require_latents_alone(weights: LogWeights) -> None:
    weights.require_latents_alone(
        "the density of the latents given x is not known; take a guide that draws the latents alone"
    )
    for name in weights.latent_terms:
        site: Site = weights.guide.nodes[name]
        if isinstance(base_distribution(site["fn"]), Delta):
            raise InputError(
                f"site {name!r} of the guide is a Delta, a point, whose KL from the prior is infinite; take a guide with a "
                "density there"
            )


def _require_repeatable(pair: Pair, batch: Batch, draws: Trace, weights: LogWeights) -> None:
    """Raise an InputError where the guide has another density at its own draws when it runs again."""
    again = log_density(pair, batch, prune_subsample_sites(draws), 1)
    if not torch.allclose(again, weights.log_proposal.double(), rtol=1e-3, atol=1e-2):
        difference = (again - weights.log_proposal).abs().max()
        raise InputError(
            f"the guide has other densities when it runs again at its own draws (they differ by {difference:.3g} nats), so "
            "that draws cannot be scored at other data; call eval() on the layer that is random (dropout?)"
        )


def _require_one_prior(pair: Pair, batch: Batch, draws: Trace, weights: LogWeights) -> None:
    """Raise an InputError where a latent has another density under the model when it is another datum's."""
    values: dict[str, Any] = {name: draws.nodes[name]["value"] for name in weights.latent_terms}
    moved = {
        name: value.roll(1, place) for (name, value), place in zip(values.items(), places(weights).values(), strict=True)
    }
    with pair.opened() as programs:
        call = Call(*programs, (batch.x,), batch.given, 1, pair.plates)
        latent = call.compose(call.observe(with_values(prune_subsample_sites(draws), moved)), draws).log_prior
    if not torch.allclose(latent, weights.log_prior.roll(1, 1), rtol=1e-3, atol=1e-2):
        raise InputError(
            "the prior is not the same for all data (it is given a context?), so that there is no one prior for the "
            "aggregate posterior to differ from; split the data of each context by themselves"
        )
