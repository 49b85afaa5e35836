r"""The log likelihood :math:`\log p(x)` of any pair, by importance sampling with the guide as proposal."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm.auto import tqdm

from pyrovae.batches import DataLike, as_data
from pyrovae.errors import InputError
from pyrovae.evaluation.device import home
from pyrovae.evaluation.draws import Draws
from pyrovae.evaluation.estimate import ImportanceSamplingWarning, LogLikelihood
from pyrovae.evaluation.limits import MAX_WEIGHTS
from pyrovae.evaluation.mode import evaluating
from pyrovae.evaluation.noise import seeded
from pyrovae.parameters import Program
from pyrovae.precision import Precision, computing_in

WORTHWHILE = 2**21
"""The number of draws, of all data together, from which on recording and fusing is expected to save time."""


def log_likelihood(
    model: Program,
    guide: Program,
    data: DataLike,
    num_samples: int = 5000,
    *,
    particles: Sequence[int] = (1, 5, 50, 500),
    seed: int = 0,
    device: torch.device | str | None = None,
    compile: bool | None = None,
    precision: Precision = "highest",
    progress: bool = False,
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

    Args:
        model: a Pyro program with a plate over data, called with one batch ``x`` of shape ``(B, *event_shape)``.
        guide: its proposal, called with the same.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset`` of ``x`` or of tuples that begin with it,
            or a mapping with more that the programs are given by name, as :func:`pyrovae.fit` takes.
        num_samples: the number of draws :math:`K` a datum.
        particles: the numbers of particles at which to estimate the importance-weighted bound from the same weights;
            those above ``num_samples`` are left out.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        compile: record the programs and fuse their operations, which takes seconds; if null, where there are two million
            draws or more to win them back. Programs that cannot be recorded run eagerly, after a warning.
        precision: in what the networks compute (:func:`pyrovae.precision.computing_in`); the weights are float32 or more.
        progress: whether to show a progress bar over data.
        max_rows: the most particles times data of one run of the programs; if null, 4,096 on a CPU, and on a CUDA device
            as many as take half of the memory that is free, which other programs there may change.
        max_weights: the most weights to hold; with more draws than this, data are taken one at a time.

    Returns:
        :class:`LogLikelihood`: arrays of shape ``(N,)``, in nats; print it for a table.

    Raises:
        InputError: for numbers below one, and, naming the site, for a pair or data that cannot be weighed and for a
            weight that is not a number (see :func:`pyrovae.weights.log_weights`).

    Warns:
        ImportanceSamplingWarning: where more than one datum in twenty has a Pareto k-hat above the threshold.

    Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (arXiv:1509.00519), section 5; Vehtari et
    al., Pareto Smoothed Importance Sampling (arXiv:1507.02646), for k-hat.
    """
    _require_positive(num_samples=num_samples, max_rows=1 if max_rows is None else max_rows, max_weights=max_weights)
    _require_positive(particles=min(particles, default=1))
    columns = as_data(data)
    device = home(columns, device)
    counts = [count for count in particles if count <= num_samples]
    compile = len(columns) * num_samples >= WORTHWHILE if compile is None else compile
    with torch.no_grad(), computing_in(precision), evaluating(model, guide), seeded(seed, device):
        draws = Draws(model, guide, columns, num_samples, device, compile, max_rows, max_weights)
        xs = tqdm(draws.batches(), total=draws.number_of_batches, disable=not progress)
        estimate = LogLikelihood.concatenate([LogLikelihood.from_log_weights(draws.of(x), counts) for x in xs])
    estimate = replace(estimate, discrete_dimensions=draws.discrete_dimensions)
    if estimate.warning:
        warnings.warn(estimate.warning, ImportanceSamplingWarning, stacklevel=2)
    return estimate


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1")
