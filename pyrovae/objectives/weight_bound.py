"""Bounds that are functions of the log weights alone, whose gradient has several estimators."""

from abc import abstractmethod
from typing import get_args

import torch
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.stop_gradient_densities import require_guide_stops
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import ESTIMATORS, Estimator
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective


class WeightBound(Objective):
    """A bound that is a function F of the log weights alone, of shape ``(K, B)``, which a subclass defines.

    Args:
        num_particles: the number K of draws a datum.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`).
    """

    def __init__(self, num_particles: int, estimator: Estimator = "reparameterized") -> None:
        super().__init__(num_particles)
        if estimator not in get_args(Estimator):
            raise InputError(f"estimator is {estimator!r}; expected one of {', '.join(map(repr, get_args(Estimator)))}")
        self.estimator: Estimator = estimator

    @abstractmethod
    def value(self, log_weights: Tensor) -> Tensor:
        """Compute the bound F, shape ``(K, B) -> (B,)``, in nats."""

    @abstractmethod
    def slopes(self, log_weights: Tensor) -> Tensor:
        r"""Compute :math:`c_k = \partial F / \partial h_k`, shape ``(K, B)``."""

    @abstractmethod
    def doubly_reparameterized(self, log_weights: Tensor) -> Tensor:
        r"""Compute :math:`d_k = c_k - \partial c_k / \partial h_k`, shape ``(K, B)``."""

    def signals(self, log_weights: Tensor) -> Tensor:
        r"""Compute the factors of :math:`\partial \log q(z_k)` in the score function, shape ``(K, B)``."""
        return self.value(log_weights).expand_as(log_weights)

    def check(self, weights: LogWeights) -> None:
        """Raise an InputError where F would not be made of densities."""
        weights.require_densities(type(self).__name__)

    def evaluate(self, call: Call) -> Evaluation:
        """Compute F of the weights, with the surrogate of the estimator where gradients are wanted."""
        if torch.is_grad_enabled():
            return ESTIMATORS[self.estimator](self, call)
        weights = call.weigh(call.draw())
        self.check(weights)
        bound = self.value(weights.total)
        return Evaluation(weights, bound, bound)

    def examine_gradient(self, call: Call) -> None:
        """Raise an InputError where a parameter of the guide would escape being stopped, too."""
        super().examine_gradient(call)
        if self.estimator in ("stl", "dreg"):
            require_guide_stops(call)
