r"""The log likelihood :math:`\log p(x)` of any pair, by importance sampling with the guide as proposal."""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from pyrovae.batches import as_data, batches, size
from pyrovae.errors import InputError
from pyrovae.evaluation.device import home
from pyrovae.evaluation.estimate import ImportanceSamplingWarning, LogLikelihood
from pyrovae.evaluation.limits import MAX_ROWS, MAX_WEIGHTS
from pyrovae.evaluation.mode import evaluating
from pyrovae.evaluation.noise import seeded
from pyrovae.evaluation.plates import plates_of
from pyrovae.parameters import Program
from pyrovae.weights import Plates, log_weights


def log_likelihood(
    model: Program,
    guide: Program,
    data: Tensor | np.ndarray | Dataset,
    num_samples: int = 5000,
    *,
    particles: Sequence[int] = (1, 5, 50, 500),
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    max_rows: int = MAX_ROWS,
    max_weights: int = MAX_WEIGHTS,
) -> LogLikelihood:
    r"""Estimate :math:`\log p(x)` of each datum, and say how far to trust it.

    .. math::
        \log \hat p(x) = \log \frac{1}{K} \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x)

    The weights are drawn in pieces, so that memory does not grow with :math:`K`, and are averaged in double precision.
    Modules run in evaluation mode, without gradients. The same seed, data and limits give the same result.

    Args:
        model: a Pyro program with a plate over data, called with one batch ``x`` of shape ``(B, *event_shape)``.
        guide: its proposal, called with the same.
        data: a tensor or array of shape ``(N, *event_shape)``, or a ``Dataset`` of ``x`` or of tuples that begin with it.
        num_samples: the number of draws :math:`K` a datum.
        particles: the numbers of particles at which to estimate the importance-weighted bound from the same weights;
            those above ``num_samples`` are left out.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        progress: whether to show a progress bar over data.
        max_rows: the most particles times data of one run of the programs: lower it where memory is short.
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
    _require_positive(num_samples=num_samples, max_rows=max_rows, max_weights=max_weights)
    _require_positive(particles=min(particles, default=1))
    data = as_data(data)
    device = home(data, device)
    counts = [count for count in particles if count <= num_samples]
    batch_size = max(1, min(max_weights // num_samples, max_rows, size(data)))
    xs = tqdm(batches(data, batch_size, device=device), total=-(-size(data) // batch_size), disable=not progress)
    with torch.no_grad(), evaluating(model, guide), seeded(seed, device):
        columns = _columns(model, guide, xs, num_samples, max_rows)
        estimate = LogLikelihood.concatenate([LogLikelihood.from_log_weights(column, counts) for column in columns])
    if estimate.warning:
        warnings.warn(estimate.warning, ImportanceSamplingWarning, stacklevel=2)
    return estimate


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name} is {number}; expected at least 1")


def _columns(model: Program, guide: Program, data: Iterable[Tensor], num_samples: int, max_rows: int) -> Iterator[Tensor]:
    """The log weights of each batch, shape ``(num_samples, B)``."""
    plates = None
    for x in data:
        plates = plates or plates_of(model, guide, x)
        yield _draw(model, guide, x, num_samples, plates, max(1, max_rows // len(x)))


def _draw(model: Program, guide: Program, x: Tensor, num_samples: int, plates: Plates, at_once: int) -> Tensor:
    """``num_samples`` log weights of each datum in ``x``, at most ``at_once`` of them in one run, in float64."""
    columns = torch.empty(num_samples, len(x), dtype=torch.float64)
    for rows in columns.split(at_once):
        weights = log_weights(model, guide, x, particles=len(rows), plates=plates)
        weights.require_densities("the log likelihood")
        total = weights.total
        _require_every_datum(total.shape[1], len(x), plates)
        rows.copy_(total)
    return columns


def _require_every_datum(found: int, expected: int, plates: Plates) -> None:
    if found != expected:
        raise InputError(
            f"plate {plates.data!r} holds {found} data where the batch has {expected}; each datum needs weights of its "
            f'own: use pyro.plate("{plates.data}", len(x)), without subsampling'
        )
