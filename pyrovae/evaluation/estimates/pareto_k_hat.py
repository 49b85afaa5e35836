r"""Pareto k-hats and Pareto smoothed weights of many data at once, on the device of the weights.

Source: Vehtari, Simpson, Gelman, Yao and Gabry, Pareto Smoothed Importance Sampling (arXiv:1507.02646); the fit is that of
Zhang and Stephens, A New and Efficient Estimation Method for the Generalized Pareto Distribution (2009), with the prior and
the constants of ArviZ, whose ``psislw`` takes one datum at a time and milliseconds for each.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

FEWEST_DRAWS = 30
"""Fewest draws with a tail to fit: it is a fifth of them, and fewer than six weights have no quartile above the smallest."""
EQUAL = 1e-4
"""Ratio below which a tail's weights differ by rounding alone: the proposal is the posterior."""
TIED = 1e-6
"""Ratio below which two weights are the same weight, computed twice."""
NOTHING = 1e-300
"""Part of the largest weight below which a weight counts as zero, as the fit divides by weights."""
HELD = 2**22
"""Number of floats that the fit of many data holds at a time."""


class Smoothed(NamedTuple):
    """Smoothed log weights, shape ``(K, N)``, and the shape of each datum's tail, ``(N,)``."""

    log_weights: Tensor
    k_hat: Tensor


def pareto_smoothed(log_weights: Tensor) -> Smoothed:
    r"""Fit a generalised Pareto distribution to the largest weights of each datum, and put its quantiles in their place.

    The weights have :math:`1 / k` moments: :math:`k < 1/2` gives them a variance, and for :math:`k` above
    :math:`\min(1 - 1 / \log_{10} K, 0.7)` the mean of K of them is not to be trusted. The tail is the :math:`\min(K / 5,
    3 \sqrt K)` largest; what is smoothed is at most the largest weight.

    Args:
        log_weights: shape ``(K, N)``, in nats, float64.

    Returns:
        :class:`Smoothed`. A k-hat is NaN where there is no tail to fit: with fewer than 30 draws, and where the largest
        weights are ties: they are all equal when the guide is the exact posterior, and also when it never draws the value
        of a discrete latent that matters, so that NaN alone says nothing good (:func:`~.trust.trusted`). It is infinite
        where one draw outweighs the rest of the tail beyond what a float can say. There the weights stay as they were.
    """
    size = _tail_size(len(log_weights))
    if len(log_weights) < FEWEST_DRAWS:
        return Smoothed(log_weights, log_weights.new_full(log_weights.shape[1:], math.nan))
    at_a_time = max(1, HELD // max(size * _grid(size), len(log_weights)))
    parts = [_smoothed(columns, size) for columns in log_weights.T.contiguous().split(at_a_time)]
    smoothed, k_hat = (torch.cat(values) for values in zip(*parts, strict=True))
    return Smoothed(smoothed.T, k_hat)


def _tail_size(draws: int) -> int:
    """The number of largest weights to fit, rounded as ArviZ does."""
    return int(3 * math.sqrt(draws)) if draws > 225 else draws // 5


def _grid(size: int) -> int:
    """Points at which the fit looks at the likelihood of a tail of so many weights."""
    return 30 + int(math.sqrt(size))


def _quartile(size: int) -> int:
    """The place of the first quartile in an ascending tail."""
    return int(size / 4 + 0.5) - 1


def _smoothed(log_weights: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Smooth the weights of data in rows, shapes ``(N, K)`` and ``(N,)``."""
    values, places = log_weights.topk(size + 1)
    largest, ascending = values[:, :1], values.flip(1)
    weights = (ascending - largest).exp()
    cutoff, tail = weights[:, :1], weights[:, 1:]
    smallest, quartile = tail[:, 0], tail[:, _quartile(size)]
    heavy = quartile < NOTHING
    fits = (1.0 - cutoff[:, 0] > EQUAL) & (quartile - smallest > TIED * quartile) & ~heavy & largest[:, 0].isfinite()
    k, sigma = _fit(tail - cutoff)
    k_hat = torch.where(fits, k, torch.where(heavy, math.inf, math.nan))
    probabilities = torch.arange(0.5, size, dtype=tail.dtype, device=tail.device) / size
    new = (cutoff + sigma[:, None] * torch.expm1(-k[:, None] * torch.log1p(-probabilities)) / k[:, None]).log()
    new = new.clamp(max=0.0) + largest
    usable = (fits & new.isfinite().all(1))[:, None]
    smoothed = log_weights.scatter(1, places[:, :-1], torch.where(usable, new, ascending[:, 1:]).flip(1))
    return smoothed, k_hat


def _fit(excess: Tensor) -> tuple[Tensor, Tensor]:
    r"""Fit shape and scale, each ``(N,)``, to tails of ascending excesses ``(N, M)``; nonsense for ties and zeros."""
    size = excess.shape[1]
    points = torch.arange(1, _grid(size) + 1, dtype=excess.dtype, device=excess.device) - 0.5
    b = (1.0 - (_grid(size) / points).sqrt()) / (3.0 * excess[:, _quartile(size), None]) + 1.0 / excess[:, -1:]
    k = torch.log1p(-b[..., None] * excess[:, None]).mean(-1)
    likelihood = (size * ((-b / k).log() - k - 1.0)).softmax(1)
    likelihood = likelihood.where(likelihood >= 10.0 * torch.finfo(excess.dtype).eps, 0.0)
    b = (b * likelihood).sum(1) / likelihood.sum(1)
    k = torch.log1p(-b[:, None] * excess).mean(1)
    return (size * k + 5.0) / (size + 10.0), -k / b
