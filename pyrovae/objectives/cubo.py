r"""The chi upper bound."""

import math

from pyrovae.engine.call import Call
from pyrovae.engine.stop_gradient_densities import require_model_stops
from pyrovae.engine.stop_gradient_programs import stopping_model
from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.power_mean import PowerMean


class CUBO(PowerMean):
    r"""The chi upper bound.

    .. math::
        \mathcal L_{\chi^n}(x) = \frac1n \log E_q \big[ w^n \big] \ge \log p(x), \qquad
        \hat{\mathcal L}_{\chi^n} = \frac1n \log \frac1K \sum_{k=1}^K w_k^n

    of each datum, shape ``(K, B) -> (B,)``, in nats. The estimate is a bound in the limit only: at a finite K its mean is
    too low, and very much so where :math:`w^n` has a heavy tail; look at it at several K.

    It is meant for evaluation. As an objective it is lowered, and has a gradient for the guide alone: a model that lowers an
    upper bound on its own density would be a worse one.

    Args:
        n: the power, at least 1.
        num_particles: the number K of draws a datum.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`).

    Raises:
        InputError: for n below 1; in training, for a guide that the estimator cannot differentiate; for a site with a scale
            of its own.

    References:
        | Variational Inference via Chi Upper Bound Minimization (Dieng et al., 2017)
        | https://arxiv.org/abs/1611.00328
    """

    sign = -1

    def __init__(self, n: float = 2.0, num_particles: int = 50, estimator: Estimator = "reparameterized") -> None:
        if not 1.0 <= n < math.inf:
            raise InputError(f"n is {n}; CUBO is an upper bound for n of at least 1 (for powers below it take Renyi)")
        super().__init__(1, num_particles, estimator)
        self.n = n

    @property
    def power(self) -> float:
        return self.n

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the bound, with a gradient for the guide alone."""
        return super().evaluate(stopping_model(call))

    def examine_gradient(self, call: Call) -> None:
        """Raise an InputError where a parameter would escape being stopped, too."""
        super().examine_gradient(call)
        require_model_stops(call)
