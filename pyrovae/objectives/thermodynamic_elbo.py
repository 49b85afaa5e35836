"""The thermodynamic variational objective."""

import math
from collections.abc import Callable
from functools import reduce
from operator import add

import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import Estimator, normalized_powers
from pyrovae.objectives.weight_bound import WeightBound


class ThermodynamicELBO(WeightBound):
    r"""The thermodynamic variational objective, a left Riemann sum of thermodynamic integration.

    .. math::
        \log p(x) = \int_0^1 E_{\pi_\beta}[\log w]\, d\beta \ge
        \sum_{j=0}^{J-1} (\beta_{j+1} - \beta_j)\, E_{\pi_{\beta_j}}[\log w],
        \qquad \pi_\beta \propto q(z \mid x)\, w^\beta

    with the expectations over :math:`\pi_\beta` taken by the normalised :math:`w_k^\beta` of K draws, shape
    ``(K, B) -> (B,)``, in nats. Of any K weights the integral is :math:`\log \frac1K \sum_k w_k` exactly, so that the
    estimate is never above IWAE's from the same draws, and a lower bound at every K; with J = 1 it is the ELBO.

    Args:
        num_particles: the number K of draws a datum.
        num_partitions: the number J of terms.
        smallest_beta: :math:`\beta_1`; the rest of the partition, to 1, is spaced evenly in :math:`\log \beta`.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`), but ``resampled``.

    Raises:
        InputError: in training, for a guide that the estimator cannot differentiate; for a site with a scale of its own.

    References:
        | The Thermodynamic Variational Objective (Masrani, Le & Wood, 2019)
        | https://arxiv.org/abs/1907.00031
    """

    def __init__(
        self,
        num_particles: int = 5,
        num_partitions: int = 5,
        smallest_beta: float = 0.025,
        estimator: Estimator = "reparameterized",
    ) -> None:
        if num_partitions < 1:
            raise InputError(f"num_partitions is {num_partitions}; ThermodynamicELBO needs at least 1")
        if not 0.0 < smallest_beta < 1.0:
            raise InputError(f"smallest_beta is {smallest_beta}; expected a number between 0 and 1")
        if estimator == "resampled":
            raise InputError(
                "estimator is 'resampled', which draws a particle by its slope, and ThermodynamicELBO has negative slopes; "
                "take 'reparameterized', 'score_function', 'stl' or 'dreg'"
            )
        super().__init__(num_particles, estimator)
        logs = [math.log(smallest_beta) * (1 - j / (num_partitions - 1)) for j in range(num_partitions - 1)]
        self.betas = (0.0, *map(math.exp, logs)) if num_partitions > 1 else (0.0,)

    def value(self, log_weights: Tensor) -> Tensor:
        """Compute the Riemann sum, shape ``(K, B) -> (B,)``."""
        return self._added(tilted_mean, log_weights)

    def slopes(self, log_weights: Tensor) -> Tensor:
        """Sum the terms' slopes."""
        return self._added(tilted_slopes, log_weights)

    def doubly_reparameterized(self, log_weights: Tensor) -> Tensor:
        """Sum the terms' slopes minus their second derivatives."""
        return self.slopes(log_weights) - self._added(tilted_curvatures, log_weights)

    def _added(self, term: Callable[[Tensor, float], Tensor], log_weights: Tensor) -> Tensor:
        ends = zip(self.betas, (*self.betas[1:], 1.0), strict=True)
        return reduce(add, ((after - before) * term(log_weights, before) for before, after in ends))


def tilted_mean(log_weights: Tensor, beta: float) -> Tensor:
    r"""Compute :math:`E_{\pi_\beta}[\log w]`, the mean of :math:`h = \log w` under :math:`s \propto e^{\beta h}`."""
    probabilities = normalized_powers(log_weights, beta)
    counted = log_weights.masked_fill(probabilities == 0.0, 0.0)  # a weight of zero times its probability, zero, is zero
    return (probabilities * counted).sum(0)


def tilted_slopes(log_weights: Tensor, beta: float) -> Tensor:
    r"""Compute the derivative of :func:`tilted_mean` by each :math:`h_k`, :math:`s_k + \beta s_k (h_k - \bar h)`."""
    probabilities, deviations = _tilted(log_weights, beta)
    return probabilities * (1 + beta * deviations)


def tilted_curvatures(log_weights: Tensor, beta: float) -> Tensor:
    r"""Compute its second derivative, :math:`2 \beta s_k (1 - s_k) + \beta^2 s_k (1 - 2 s_k) (h_k - \bar h)`."""
    s, deviations = _tilted(log_weights, beta)
    return 2 * beta * s * (1 - s) + beta**2 * s * (1 - 2 * s) * deviations


def _tilted(log_weights: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Compute the probabilities, and the deviations from the mean under them, 0 where the probability is."""
    probabilities = normalized_powers(log_weights, beta)
    if beta == 0.0:
        return probabilities, torch.zeros_like(log_weights)  # which are not looked at
    deviations = log_weights - tilted_mean(log_weights, beta)
    return probabilities, deviations.masked_fill(probabilities == 0.0, 0.0)
