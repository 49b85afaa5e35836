r"""Bounds on :math:`\log p(x)` against their number of particles, all from one set of importance weights."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import require_positive
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.k_hat_warning import ImportanceSamplingWarning
from pyrovae.evaluation.estimates.standard_error import means_and_errors, monte_carlo_error, student_interval
from pyrovae.evaluation.likelihood.bound_curve_table import table
from pyrovae.evaluation.likelihood.draws import Draws
from pyrovae.evaluation.likelihood.grouped_bounds import (
    BOUNDS,
    Bound,
    GroupedBounds,
    MakesBound,
    grouped_bounds,
    make_bounds,
    require_draws,
)
from pyrovae.evaluation.likelihood.importance_sampling import WORTHWHILE
from pyrovae.evaluation.likelihood.log_likelihood import log_likelihood
from pyrovae.runtime.batches import DataLike, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_WEIGHTS
from pyrovae.runtime.precision import Precision, computing_in
from pyrovae.runtime.progress import progress_bar
from pyrovae.runtime.seeds import seed_of, seeded, set_seed

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoundCurve:
    r"""Bounds on :math:`\log p(x)` of N data at several numbers of particles K, in nats; NumPy arrays of float64.

    Attributes:
        names: of the bounds.
        num_particles: the numbers K.
        values: each bound at each K, for each datum, shape ``(bounds, K, N)``: the mean over groups of the draws that one
            value needs.
        standard_error: the Monte Carlo standard error of each value, of the same shape; NaN where the draws make a single
            group.
        num_groups: the number of groups that each value is the mean of, shape ``(bounds, K)``.
        is_upper: whether a bound is meant to be above :math:`\log p(x)`, one a bound.
        log_likelihood: the estimate of :math:`\log p(x)` from all draws, or to a tolerance, with its errors and diagnostics.
    """

    names: tuple[str, ...]
    num_particles: tuple[int, ...]
    values: Array
    standard_error: Array
    num_groups: NDArray[np.int64]
    is_upper: tuple[bool, ...]
    log_likelihood: LogLikelihood

    @property
    def mean(self) -> Array:
        """The means over data, shape ``(bounds, K)``."""
        return self.values.mean(-1)

    @property
    def data_error(self) -> Array:
        r"""Standard errors of the means from the choice of data, :math:`\mathrm{sd} / \sqrt N`, shape ``(bounds, K)``."""
        return means_and_errors(self.values)[1]

    @property
    def monte_carlo_error(self) -> Array:
        r"""Standard errors of the means from the draws, :math:`\sqrt{\sum_n \mathrm{se}_n^2} / N`, shape ``(bounds, K)``."""
        return monte_carlo_error(self.standard_error)

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Student's interval of each bound of each datum, from its Monte Carlo error, two arrays ``(bounds, K, N)``.

        It is one for the bound at K particles, and not for log p(x), of which ``log_likelihood.interval`` is.
        """
        return student_interval(self.values, self.standard_error, self.num_groups[..., None], level)

    @property
    def gap(self) -> Array:
        r"""Gap of each bound below :math:`\log \hat p(x)` of the same datum, shape ``(bounds, K, N)``."""
        with np.errstate(invalid="ignore"):
            return self.log_likelihood.log_p - self.values

    @property
    def gap_mean(self) -> Array:
        """The mean gaps over data, shape ``(bounds, K)``; negative for a bound from above."""
        return means_and_errors(self.gap)[0]

    @property
    def gap_error(self) -> Array:
        """Standard errors of the mean gaps, the spread of the gap over data and its noise together, ``(bounds, K)``."""
        return means_and_errors(self.gap)[1]

    def rows(self) -> list[dict[str, Any]]:
        """List a dictionary for each bound and K, for ``pandas.DataFrame``."""
        columns = ("mean", "data_error", "monte_carlo_error", "gap_mean", "gap_error")
        found = {name: getattr(self, name) for name in columns}
        return [
            {"bound": name, "particles": count, "is_upper": upper, **{c: float(found[c][i, j]) for c in columns}}
            for i, (name, upper) in enumerate(zip(self.names, self.is_upper, strict=True))
            for j, count in enumerate(self.num_particles)
        ]

    def __str__(self) -> str:
        return table(self)


@takes_pair
def bound_curve(
    pair: PairLike,
    data: DataLike,
    num_particles: Sequence[int] = (1, 5, 50, 500, 5000),
    bounds: Mapping[str, MakesBound] = BOUNDS,
    *,
    num_samples: int | None = None,
    tolerance: float | None = None,
    level: float = 0.95,
    budget: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    compile: bool | None = None,
    precision: Precision = "highest",
    progress: bool = True,
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
            (-1 for an upper bound) and ``value`` (log weights of shape ``(num_particles, B)`` to values ``(B,)``).
        num_samples: the number S of draws a datum; by default twice as many as the largest bound needs, so that each has
            a Monte Carlo error.
        tolerance: if not null, log p(x) of each datum is estimated to this many nats by draws of its own, as by
            :func:`log_likelihood`, and holds where the guide's draws are too few or too far off. The gaps are then less
            certain, as it and the bounds no longer share their draws.
        level: the level of the interval that the tolerance is for.
        budget: the most evaluations of the model for one datum's log p(x) to the tolerance; if null, 500,000.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        compile: record the programs and fuse their operations; if null, where there are two million draws or more.
        precision: in what networks compute (:func:`pyrovae.runtime.precision.computing_in`); weights are float32 or more.
        progress: show a bar over data on stderr once the call has taken two seconds.
        max_rows: at most so many rows, draws times data, in one pass of the programs; if null, as many as fit, as in
            :func:`log_likelihood`.
        max_weights: the most weights to hold; with more draws than this, data are taken one at a time.

    Returns:
        :class:`BoundCurve`; print it for a table, and hand it to :func:`pyrovae.plots.bound_curve` for a figure.

    Raises:
        InputError: for no bound, no number of particles or one below 1; for a bound that is no function of log weights, or
            is not a number; where a bound needs more draws than there are; and for pairs and data that
            :func:`~pyrovae.evaluation.log_likelihood` refuses.

    Warns:
        ImportanceSamplingWarning: as :func:`log_likelihood` does.

    Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (arXiv:1509.00519), section 3, for bounds that
    approach :math:`\log p(x)`; Grosse, Ghahramani and Adams, Sandwiching the Marginal Likelihood Using Bidirectional Monte
    Carlo (arXiv:1511.02543), for reading it between two.
    """
    model, guide = programs(pair)
    made = make_bounds(num_particles, bounds)
    num_samples = require_draws(made, num_samples)
    require_positive(max_rows=max_rows, max_weights=max_weights)
    close = None
    if tolerance is not None:
        options = {"compile": compile, "precision": precision, "progress": progress, "max_rows": max_rows}
        asked = {"tolerance": tolerance, "level": level, "budget": budget, "seed": seed, "device": device}
        close = _close((model, guide), data, num_samples, **asked, **options, max_weights=max_weights)
    columns = as_data(data)
    device = home(columns, device)
    compile = len(columns) * num_samples >= WORTHWHILE if compile is None else compile
    with torch.no_grad(), computing_in(precision), evaluating(model, guide), seeded(seed, device):
        draws = Draws(model, guide, columns, num_samples, device, compile, max_rows, max_weights)
        parts = []
        for index, batch in enumerate(progress_bar(draws.batches(), total=draws.number_of_batches, progress=progress)):
            set_seed(seed_of(seed, index), device)
            parts.append(grouped_bounds(draws.log_weights(batch), made))
    estimate = LogLikelihood.concatenate([part.estimate for part in parts])
    estimate = replace(estimate, discrete_latents=draws.discrete_latents)
    curve = _joined(parts, tuple(num_particles), made, close or estimate)
    if curve.log_likelihood.warning:
        warnings.warn(curve.log_likelihood.warning, ImportanceSamplingWarning, stacklevel=3)
    return curve


def _close(pair: PairLike, data: DataLike, num_samples: int, **options: Any) -> LogLikelihood:
    """Estimate log p(x) to a tolerance, beside bounds of so many draws; the curve warns where it is not met."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportanceSamplingWarning)
        return replace(log_likelihood(pair, data, num_particles=(), **options), num_samples=num_samples)


def _joined(
    parts: Sequence[GroupedBounds],
    particles: tuple[int, ...],
    made: Mapping[str, Sequence[Bound]],
    estimate: LogLikelihood,
) -> BoundCurve:
    return BoundCurve(
        names=tuple(made),
        num_particles=particles,
        values=torch.cat([part.values for part in parts], -1).numpy(),
        standard_error=torch.cat([part.errors for part in parts], -1).numpy(),
        num_groups=parts[0].num_groups.numpy(),
        is_upper=tuple(those[0].sign < 0 for those in made.values()),
        log_likelihood=estimate,
    )
