r"""The log likelihood :math:`\log p(x)` of any pair, by importance sampling with the guide as proposal."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.k_hat_warning import ImportanceSamplingWarning
from pyrovae.evaluation.likelihood.defensive import FEWEST
from pyrovae.evaluation.likelihood.importance_sampling import ImportanceSampling
from pyrovae.evaluation.likelihood.tolerance.controller import Controller
from pyrovae.evaluation.likelihood.tolerance.goal import BUDGET, Goal
from pyrovae.runtime.batches import DataLike, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_WEIGHTS
from pyrovae.runtime.precision import Precision
from pyrovae.runtime.seeds import Seed, Seeds, seeded

Proposal = Literal["guide", "mixture", "auto"]


@takes_pair
def log_likelihood(
    pair: PairLike,
    data: DataLike,
    num_samples: int = 5000,
    *,
    num_particles: Sequence[int] = (1, 5, 50, 500),
    proposal: Proposal = "guide",
    tolerance: float | None = None,
    level: float = 0.95,
    budget: int | None = None,
    seed: Seed = 0,
    device: torch.device | str | None = None,
    compile: bool | None = None,
    precision: Precision = "highest",
    progress: bool = True,
    max_rows: int | None = None,
    max_weights: int = MAX_WEIGHTS,
) -> LogLikelihood:
    r"""Estimate :math:`\log p(x)` of each datum, and say how far to trust it.

    .. math::
        \log \hat p(x) = \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    The weights are drawn in pieces, so that memory does not grow with :math:`K`, and are averaged in double precision.
    Modules run in evaluation mode, without gradients. The same seed, data and limits give the same result, compiled or
    not, but for rounding. All pieces are of one size: where it does not divide the data, or the draws, the last piece is
    filled up, and what fills it is left out of the result.

    Where a process group of ``torch.distributed`` is there, its processes share the batches of data, each must make the
    call, and each has the whole result: that of one process, for a given ``max_rows``.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs, each called with one batch ``x``
            of shape ``(B, *event_shape)``, within a plate over data.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset`` of ``x`` or of tuples that begin with it,
            or a mapping with more that the programs are given by name, as :func:`pyrovae.fit` takes.
        num_samples: the number of draws :math:`K` a datum.
        num_particles: the numbers of particles at which to estimate the importance-weighted bound from the same weights;
            those above ``num_samples``, or to a tolerance above 1,000, are left out.
        proposal: ``guide``; ``mixture``, of which a tenth is the guide with wider scales and a tenth the prior
            (:mod:`pyrovae.evaluation.likelihood.defensive`); or ``auto``: the mixture for those data that are not trusted
            under the guide (:attr:`~.estimate.LogLikelihood.trusted`), with draws of its own. The bounds are the guide's,
            and the mixture has none.
        tolerance: the largest distance from log p(x) to an end of its interval, in nats. Each datum then climbs from the
            guide to a normal proposal that is fitted to it, and to annealed chains, until its interval is narrow enough and
            its diagnostics hold (:mod:`pyrovae.evaluation.likelihood.tolerance`), whatever ``num_samples`` is; discrete
            latents beside continuous ones, of 128 outcomes a datum at most, are summed over. ``proposal`` is left at its
            default. ``effort`` of the result says what was reached and what it took.
        level: the level of that interval.
        budget: the most evaluations of the model for one datum, at which the tolerance is given up; if null, 500,000. Draws
            and chains that would exceed it are not made; a fit, and the search for modes that the guide missed, may.
        seed: where the noise starts; the caller's random generators stay as they were. A seed a datum, of shape ``(N,)``,
            alone decides the noise of that datum, whatever the others are and in whatever order: data are then taken one
            at a time, which costs little where ``num_samples`` is large.
        device: where to put each batch; by default it stays where it is.
        compile: record the programs and fuse their operations, which takes seconds; if null, where there are two million
            draws or more to win them back, which to a tolerance are taken to be 5,000 a datum. Programs that cannot be
            recorded run eagerly, after a warning.
        precision: in what networks compute (:func:`pyrovae.runtime.precision.computing_in`); weights are float32 or more.
        progress: show a bar over data on stderr once the call has taken two seconds.
        max_rows: at most so many rows, draws times data, in one pass of the programs; if null, 4,096 on a CPU, fewer of
            data with more than 512 numbers each, and on a CUDA device as many as take half of the memory that is free,
            which other programs there may change.
        max_weights: the most weights to hold; with more draws than this, data are taken one at a time.

    Returns:
        :class:`LogLikelihood`: arrays of shape ``(N,)``, in nats; print it for a table.

    Raises:
        InputError: for numbers below one, for a proposal that is chosen beside a tolerance, and, naming the site, for a pair
            or data that cannot be weighed and for a weight that is not a number (see
            :func:`pyrovae.engine.log_weights.log_weights`).

    Warns:
        ImportanceSamplingWarning: where more than one datum in twenty is not trusted: its Pareto k-hat is above the
            threshold, or none could be fitted, as with fewer than 30 draws.

    Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (arXiv:1509.00519), section 5; Vehtari et
    al., Pareto Smoothed Importance Sampling (arXiv:1507.02646), for k-hat.
    """
    model, guide = programs(pair)
    require_positive(num_samples=num_samples, max_rows=max_rows, max_weights=max_weights)
    require_positive(num_particles=min(num_particles, default=1))
    _require_one_way(proposal, num_samples, tolerance)
    columns = as_data(data)
    device = home(columns, device)
    seeds = Seeds.parse(seed, len(columns))
    max_weights = 1 if seeds.alone else max_weights  # fewer than the draws of a datum: one datum at a time
    options = ImportanceSampling(num_samples, device, compile, precision, progress, max_rows, max_weights)
    counts = [count for count in num_particles if count <= num_samples]
    with torch.no_grad(), evaluating(model, guide), seeded(seeds.first, device):
        if tolerance is not None:
            goal = Goal(tolerance, level, BUDGET if budget is None else budget)
            estimate = Controller(model, guide, columns, goal, options, seeds)(num_particles)
        elif proposal == "mixture":
            estimate = options.estimate(model, guide, columns, (), seeds, defensive=True)
            estimate = replace(estimate, defensive=np.ones(len(columns), dtype=bool))
        else:
            estimate = options.estimate(model, guide, columns, counts, seeds)
        if proposal == "auto" and (bad := ~estimate.trusted).any():
            again = options.estimate(model, guide, columns, (), seeds.others(bad), defensive=True, chosen=bad)
            estimate = estimate.with_rows(bad, again)
    if estimate.warning:
        warnings.warn(estimate.warning, ImportanceSamplingWarning, stacklevel=3)
    return estimate


def _require_one_way(proposal: Proposal, num_samples: int, tolerance: float | None) -> None:
    """Raise an InputError for a proposal that is none, has too few draws, or is chosen beside a tolerance."""
    if proposal not in get_args(Proposal):
        raise InputError(f"proposal is {proposal!r}; expected one of {', '.join(map(repr, get_args(Proposal)))}")
    if proposal != "guide" and tolerance is not None:
        raise InputError(
            f"proposal is {proposal!r} and tolerance is {tolerance}; expected one of the two, as to a tolerance each datum "
            'has the proposal that it needs: leave proposal at "guide", or tolerance out'
        )
    if proposal != "guide" and num_samples < FEWEST:
        raise InputError(f"num_samples is {num_samples}; expected at least {FEWEST} with proposal={proposal!r}")
