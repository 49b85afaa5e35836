r"""Bounds on :math:`\log p(x)` against their number of particles, all from one set of importance weights."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import fill
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.estimates.estimate import ImportanceSamplingWarning, LogLikelihood
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.evaluation.likelihood.draws import Draws
from pyrovae.evaluation.likelihood.log_likelihood import WORTHWHILE
from pyrovae.objectives import CUBO, ELBO, EUBO, IWAE, Renyi
from pyrovae.runtime.batches import DataLike, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_WEIGHTS
from pyrovae.runtime.precision import Precision, computing_in
from pyrovae.runtime.seeds import seed_of, seeded, set_seed

Array = NDArray[np.float64]


class Bound(Protocol):
    """A function of log weights; ``ELBO``, ``IWAE``, ``CUBO`` and the other bounds made of weights are such."""

    num_particles: int
    sign: int

    def of(self, log_weights: Tensor, /) -> Tensor:
        """Its value, shape ``(num_particles, B) -> (B,)``, in nats."""
        ...


MakesBound = Callable[[int], Any]
"""Makes a :class:`Bound` for K particles, which may need more draws than that."""

BOUNDS: Mapping[str, MakesBound] = {
    "ELBO": ELBO,
    "Renyi(0.5)": partial(Renyi, 0.5),
    "IWAE": IWAE,
    "EUBO": EUBO,
    "CUBO(2)": partial(CUBO, 2.0),
}
"""Three that are below at every K, and two that are above in its limit."""


@dataclass(frozen=True, eq=False)
class BoundCurve:
    r"""Bounds on :math:`\log p(x)` of N data at several numbers of particles K, in nats.

    Attributes:
        names: of the bounds.
        num_particles: the numbers K.
        values: each bound at each K, for each datum, shape ``(bounds, K, N)``: the mean over groups of the draws that one
            value needs.
        standard_errors: their Monte Carlo standard errors, of the same shape; NaN where the draws make a single group.
        is_upper: whether a bound is meant to be above :math:`\log p(x)`, one a bound.
        log_likelihood: the estimate of :math:`\log p(x)` from all draws, with its errors and diagnostics.
    """

    names: tuple[str, ...]
    num_particles: tuple[int, ...]
    values: Array
    standard_errors: Array
    is_upper: tuple[bool, ...]
    log_likelihood: LogLikelihood

    @property
    def mean(self) -> Array:
        """The means over data, shape ``(bounds, K)``."""
        return self.values.mean(-1)

    @property
    def data_error(self) -> Array:
        r"""Standard errors of the means from the choice of data, :math:`\mathrm{sd} / \sqrt N`, shape ``(bounds, K)``."""
        return _over_data(self.values)[1]

    @property
    def monte_carlo_error(self) -> Array:
        r"""Standard errors of the means from the draws, :math:`\sqrt{\sum_n \mathrm{se}_n^2} / N`, shape ``(bounds, K)``."""
        return np.sqrt(np.square(self.standard_errors).sum(-1)) / self.values.shape[-1]

    @property
    def gap(self) -> Array:
        r"""How far a bound is below :math:`\log \hat p(x)`, of each datum by itself, shape ``(bounds, K, N)``."""
        with np.errstate(invalid="ignore"):
            return self.log_likelihood.log_p - self.values

    @property
    def gap_mean(self) -> Array:
        """The mean gaps over data, shape ``(bounds, K)``; negative for a bound from above."""
        return _over_data(self.gap)[0]

    @property
    def gap_error(self) -> Array:
        """Standard errors of the mean gaps, the spread of the gap over data and its noise together, ``(bounds, K)``."""
        return _over_data(self.gap)[1]

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each bound and K, for ``pandas.DataFrame``."""
        columns = ("mean", "data_error", "monte_carlo_error", "gap_mean", "gap_error")
        found = {name: getattr(self, name) for name in columns}
        return [
            {"bound": name, "particles": count, "is_upper": upper, **{c: float(found[c][i, j]) for c in columns}}
            for i, (name, upper) in enumerate(zip(self.names, self.is_upper, strict=True))
            for j, count in enumerate(self.num_particles)
        ]

    def __str__(self) -> str:
        return "\n\n".join("\n".join(lines) for lines in _tables(self))


@takes_pair
def bound_curve(
    pair: PairLike,
    data: DataLike,
    num_particles: Sequence[int] = (1, 5, 50, 500, 5000),
    bounds: Mapping[str, MakesBound] = BOUNDS,
    *,
    num_samples: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    compile: bool | None = None,
    precision: Precision = "highest",
    progress: bool = False,
    max_rows: int | None = None,
    max_weights: int = MAX_WEIGHTS,
) -> BoundCurve:
    r"""Estimate bounds at several numbers of particles from one set of weights, and :math:`\log p(x)` from all of it.

    .. math::
        \hat{\mathcal L}_K(x) = \frac1G \sum_{g=1}^G F_K(w_{g1}, \dots, w_{gK}), \qquad
        \log \hat p(x) = \log \frac1S \sum_{s=1}^S w_s, \qquad G = \lfloor S / K \rfloor

    The S draws of a datum are cut into groups of as many as one value of :math:`F_K` needs, and the remainder is left out,
    so that each value is unbiased for what the objective reports at that K. Since they share their draws, differences
    between bounds, and from the estimate, are far less uncertain than the bounds. Beside :math:`\log \hat p(x)`, which is
    itself a little too low, an upper bound is of use at large K alone: at small K its mean is below.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs, each called with one batch ``x``
            of shape ``(B, *event_shape)``, within a plate over data.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset`` of ``x`` or of tuples that begin with it,
            or a mapping with more that the programs are given by name, as :func:`pyrovae.fit` takes.
        num_particles: the numbers K.
        bounds: by name, what makes a bound for K particles: a class as it is, ``partial(CIWAE, 0.5)``, or ``lambda K:
            MIWAE(8, K)``. Any object will do that has ``num_particles`` (the draws that one value needs), ``sign``
            (false for an upper bound) and ``of`` (log weights of shape ``(num_particles, B)`` to values ``(B,)``).
        num_samples: the number S of draws a datum; by default twice as many as the largest bound needs, so that each has
            a Monte Carlo error.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        compile: record the programs and fuse their operations; if null, where there are two million draws or more.
        precision: in what networks compute (:func:`pyrovae.runtime.precision.computing_in`); weights are float32 or more.
        progress: whether to show a progress bar over data.
        max_rows: the most draws times data of one run of the programs; if null, as :func:`log_likelihood` has it.
        max_weights: the most weights to hold; with more draws than this, data are taken one at a time.

    Returns:
        :class:`BoundCurve`; print it for a table, and hand it to :func:`pyrovae.plots.bound_curve` for a figure.

    Raises:
        InputError: for no bound, no number of particles or one below 1; for a bound that is no function of log weights, or
            is not a number; where a bound needs more draws than there are; and for pairs and data that
            :func:`~pyrovae.evaluation.log_likelihood` refuses.

    Warns:
        ImportanceSamplingWarning: where more than one datum in twenty has a Pareto k-hat above the threshold.

    Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (arXiv:1509.00519), section 3, for bounds that
    approach :math:`\log p(x)`; Grosse, Ghahramani and Adams, Sandwiching the Marginal Likelihood Using Bidirectional Monte
    Carlo (arXiv:1511.02543), for reading it between two.
    """
    model, guide = programs(pair)
    made = _made(num_particles, bounds)
    num_samples = _number(made, num_samples)
    require_positive(max_rows=max_rows, max_weights=max_weights)
    columns = as_data(data)
    device = home(columns, device)
    compile = len(columns) * num_samples >= WORTHWHILE if compile is None else compile
    with torch.no_grad(), computing_in(precision), evaluating(model, guide), seeded(seed, device):
        draws = Draws(model, guide, columns, num_samples, device, compile, max_rows, max_weights)
        xs = tqdm(draws.batches(), total=draws.number_of_batches, disable=not progress)
        parts = []
        for index, batch in enumerate(xs):
            set_seed(seed_of(seed, index), device)
            parts.append(_measured(draws.of(batch), made))
    curve = _joined(parts, tuple(num_particles), made)
    if curve.log_likelihood.warning:
        warnings.warn(curve.log_likelihood.warning, ImportanceSamplingWarning, stacklevel=3)
    return curve


class _Part(NamedTuple):
    """What one batch gives: values and their Monte Carlo errors, shape ``(bounds, K, B)``, and the estimate."""

    values: Tensor
    errors: Tensor
    estimate: LogLikelihood


def _made(particles: Sequence[int], bounds: Mapping[str, MakesBound]) -> dict[str, list[Bound]]:
    """The bounds at each K, by name."""
    if not bounds:
        raise InputError('bounds is empty; expected some, by name: {"IWAE": pyrovae.IWAE}')
    if not particles or min(particles) < 1:
        raise InputError(f"particles is {tuple(particles)}; expected numbers of at least 1, and one of them or more")
    made = {name: [make(count) for count in particles] for name, make in bounds.items()}
    for name, bound in ((name, bound) for name, those in made.items() for bound in those):
        if not all(hasattr(bound, member) for member in ("of", "num_particles", "sign")):
            raise InputError(
                f"bound {name!r} is {bound!r}, which is no function of log weights (of, num_particles, sign); pass "
                "what makes one for K particles, such as pyrovae.IWAE or partial(pyrovae.objectives.CIWAE, 0.5)"
            )
    return made


def _number(made: Mapping[str, Sequence[Bound]], num_samples: int | None) -> int:
    """The number of draws, which is enough for every bound."""
    name, most = max(((n, b.num_particles) for n, those in made.items() for b in those), key=lambda needs: needs[1])
    if num_samples is None:
        return 2 * most
    if num_samples < most:
        raise InputError(f"bound {name!r} needs {most:,} draws and num_samples is {num_samples:,}; pass at least {most}")
    return num_samples


def _measured(log_weights: Tensor, made: Mapping[str, Sequence[Bound]]) -> _Part:
    values, errors = [], []
    for name, bound in ((name, bound) for name, those in made.items() for bound in those):
        groups = _of_groups(bound, log_weights)
        _require_numbers(name, bound, groups)
        values.append(groups.mean(0))
        errors.append(groups.std(0) / math.sqrt(len(groups)) if len(groups) > 1 else torch.full_like(groups[0], math.nan))
    shape = len(made), -1, log_weights.shape[1]
    return _Part(
        torch.stack(values).reshape(shape).cpu(),
        torch.stack(errors).reshape(shape).cpu(),
        LogLikelihood.from_log_weights(log_weights),
    )


def _of_groups(bound: Bound, log_weights: Tensor) -> Tensor:
    """The bound of each disjoint group of draws, shape ``(groups, B)``."""
    groups = len(log_weights) // bound.num_particles
    grouped = log_weights[: groups * bound.num_particles].unflatten(0, (groups, bound.num_particles))
    return bound.of(grouped.transpose(0, 1).flatten(1)).unflatten(0, (groups, -1))


def _require_numbers(name: str, bound: Bound, values: Tensor) -> None:
    if values.isnan().any():
        number = int(values.isnan().any(0).sum())
        raise InputError(
            f"bound {name!r} of {bound.num_particles:,} draws is NaN for {number} of {values.shape[1]} data; where "
            "weights are zero not every bound has a value: leave it out of bounds"
        )


def _joined(parts: Sequence[_Part], particles: tuple[int, ...], made: Mapping[str, Sequence[Bound]]) -> BoundCurve:
    return BoundCurve(
        names=tuple(made),
        num_particles=particles,
        values=torch.cat([part.values for part in parts], -1).numpy(),
        standard_errors=torch.cat([part.errors for part in parts], -1).numpy(),
        is_upper=tuple(those[0].sign < 0 for those in made.values()),
        log_likelihood=LogLikelihood.concatenate([part.estimate for part in parts]),
    )


def _over_data(values: Array) -> tuple[Array, Array]:
    """The means of the last axis, and their standard errors."""
    found = [mean_and_error(column) for column in values.reshape(-1, values.shape[-1])]
    means, errors = np.array(found).T
    return means.reshape(values.shape[:-1]), errors.reshape(values.shape[:-1])


def _tables(curve: BoundCurve) -> list[list[str]]:
    """The estimate, the bounds, and their gaps to it."""
    estimate = curve.log_likelihood
    head = [
        f"bounds on log p(x) of {len(estimate.log_p):,} data by {estimate.num_samples:,} draws each, in nats",
        f"log p(x) is {estimate.mean:.4f} ± {estimate.data_error:.4f} from the data ± {estimate.monte_carlo_error:.4f} "
        "from the draws",
    ]
    means = _table(curve, "mean ± from the data", curve.mean, curve.data_error, 2)
    gaps = _table(curve, "log p(x) less it", curve.gap_mean, curve.gap_error, 4)
    note = [fill(f"Warning: {estimate.warning}.", 78, initial_indent="  ", subsequent_indent="  ")]
    return [head, means, gaps, *([note] if estimate.warning else [])]


def _table(curve: BoundCurve, title: str, values: Array, errors: Array, digits: int) -> list[str]:
    cells = [
        [f"{v:.{digits}f} ± {e:.{digits}f}" for v, e in zip(*row, strict=True)] for row in zip(values, errors, strict=True)
    ]
    header = [f"K = {count:,}" for count in curve.num_particles]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    width = max(map(len, (title, *curve.names)))
    rows = zip((title, *curve.names), (header, *cells), strict=True)
    return [f"  {name:<{width}}" + "".join(f"  {c:>{w}}" for c, w in zip(row, widths, strict=True)) for name, row in rows]
