r"""Estimates of :math:`p(x)` from one column of log importance weights, with their errors and intervals.

With :math:`w_k = p(x, z_k) / q(z_k \mid x)` and :math:`z_k \sim q(z \mid x)`, the mean weight estimates :math:`p(x)` without
bias. Every function here takes ``log_weights`` of shape ``(K, N)``, a column a datum, and returns ``(N,)``. A weight of
zero (``-inf``) is a weight like any other.
"""

import math

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.errors import InputError

Array = NDArray[np.float64]


def log_mean_weight(log_weights: Tensor) -> Tensor:
    r"""Compute :math:`\log \frac{1}{K} \sum_k w_k`, in nats; ``-inf`` where every weight is zero.

    Source: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders (arXiv:1509.00519), equation 8.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def importance_weighted_bound(log_weights: Tensor, particles: int) -> Tensor:
    r"""Estimate the importance-weighted bound of ``particles`` draws without bias, in nats.

    .. math::
        \mathrm{IWAE}_K = \mathbb{E} \log \frac{1}{K} \sum_{k=1}^{K} w_k \le \log p(x)

    is averaged over disjoint groups of :math:`K` weights, the remainder left out; :math:`K = 1` is the ELBO.

    Source: Burda, Grosse and Salakhutdinov (arXiv:1509.00519), equation 8.
    """
    groups = len(log_weights) // particles
    grouped = log_weights[: groups * particles].unflatten(0, (groups, particles))
    return (grouped.logsumexp(1) - math.log(particles)).mean(0)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Compute :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, from 1 to K; 0 where every weight is zero.

    Source: Kong, Liu and Wong, Sequential Imputations and Bayesian Missing Data Problems (1994).
    """
    weights = _relative(log_weights)
    return (weights.sum(0).square() / weights.square().sum(0)).nan_to_num(nan=0.0)


def standard_error(log_weights: Tensor) -> Tensor:
    r"""Estimate the standard error of :func:`log_mean_weight` by the delta method, in nats.

    .. math::
        \frac{\mathrm{sd}(w)}{\sqrt{K}\, \bar w} = \sqrt{\frac{K}{K - 1} \left(\frac{1}{\mathrm{ESS}} - \frac{1}{K}\right)}

    NaN for a single draw, and where every weight is zero. It presumes that the weights have a variance, which their
    Pareto k-hat tells: see :func:`pyrovae.evaluation.estimates.pareto_k_hat.pareto_smoothed`.
    """
    weights = _relative(log_weights)
    variance = weights.var(0, correction=0) / weights.mean(0).square()
    return (variance / (len(weights) - 1)).sqrt()


def jackknife(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Correct the estimate for its bias of order :math:`1 / K`, and estimate the standard error of the result, in nats.

    .. math::
        K \log \bar w - (K - 1)\, \overline{\log \bar w_{-k}}, \qquad
        \bar w_{-k} = \frac{1}{K - 1} \sum_{j \ne k} w_j, \qquad
        \mathrm{se}^2 = (K - 1) \operatorname{var}_k \log \bar w_{-k}

    The logarithm of the mean weight is too low by about half its squared standard error. NaN for a single draw, and where
    one draw outweighs all others beyond what a float can say.

    Source: Nowozin, Debiasing Evidence Approximations: On Importance-weighted Autoencoders and Jackknife Variational
    Inference (2018), equation 8.
    """
    number = len(log_weights)
    shares = log_weights.softmax(0)
    without = torch.log1p(-shares) + math.log(number / (number - 1)) if number > 1 else shares * math.nan
    bias = (number - 1) * without.mean(0)
    error = ((number - 1) * without.var(0, correction=0)).sqrt()
    unknown = ~bias.isfinite()
    return (log_mean_weight(log_weights) - bias).masked_fill(unknown, math.nan), error.masked_fill(unknown, math.nan)


def interval(log_p: Array, standard_error: Array, number: int | NDArray[np.int64], level: float) -> tuple[Array, Array]:
    r"""Compute an interval for log p(x) from the pivot :math:`\hat p / p`, of mean 1 and the standard error as its spread.

    .. math::
        \log \hat p - \log(1 + t\, \mathrm{se}) \le \log p \le \log \hat p - \log(1 - t\, \mathrm{se}),

    with Student's t of ``number - 1`` degrees; there is no upper end where :math:`t\, \mathrm{se} \ge 1`. It reaches further
    up than down, as the mean of heavy weights is more often too low.
    """
    reach = standard_error * student(number, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(reach < 1.0, -np.log1p(-np.minimum(reach, 1.0)), np.where(np.isnan(reach), math.nan, math.inf))
    return log_p - np.log1p(reach), log_p + up


def student(number: int | NDArray[np.int64], level: float) -> Array:
    """Compute Student's quantile: how many standard errors an interval of a mean of so many numbers reaches to each side.

    Raises:
        InputError: for a level that is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level is {level}; expected a number between 0 and 1, as 0.95")
    return scipy.stats.t(np.asarray(number) - 1).ppf((1.0 + level) / 2.0)


def _relative(log_weights: Tensor) -> Tensor:
    """The weights divided by the largest of their column, which cancels in every ratio of them."""
    largest = log_weights.amax(0)
    return (log_weights - largest.where(largest > -math.inf, 0.0)).exp()
