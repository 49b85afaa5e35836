"""A convex combination of ELBO and IWAE."""

from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.objectives.elbo import ELBO
from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.iwae import IWAE
from pyrovae.objectives.weight_bound import WeightBound


class CIWAE(WeightBound):
    r"""A convex combination of the ELBO and the importance-weighted bound, from the same particles.

    .. math::
        \mathcal L(x) = E \Big[ \beta\, \frac1K \sum_k \log w_k + (1 - \beta) \log \frac1K \sum_k w_k \Big]

    of each datum, shape ``(K, B) -> (B,)``, in nats; between the two.

    Args:
        beta: the part of the ELBO, from 0 to 1.
        num_particles: the number K of draws a datum.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`).

    Raises:
        InputError: for a beta outside [0, 1]; in training, for a guide that the estimator cannot differentiate; for a site
            with a scale of its own.

    References:
        | Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018)
        | https://arxiv.org/abs/1802.04537
    """

    def __init__(self, beta: float = 0.5, num_particles: int = 5, estimator: Estimator = "reparameterized") -> None:
        if not 0.0 <= beta <= 1.0:
            raise InputError(f"beta is {beta}; expected a number from 0 (IWAE) to 1 (ELBO)")
        super().__init__(num_particles, estimator)
        self.beta = beta
        self._elbo, self._iwae = ELBO(num_particles), IWAE(num_particles)

    def value(self, log_weights: Tensor) -> Tensor:
        """Combine the two bounds, shape ``(K, B) -> (B,)``."""
        return self._mixed(self._elbo.value(log_weights), self._iwae.value(log_weights))

    def slopes(self, log_weights: Tensor) -> Tensor:
        """Combine the slopes of the two bounds."""
        return self._mixed(self._elbo.slopes(log_weights), self._iwae.slopes(log_weights))

    def doubly_reparameterized(self, log_weights: Tensor) -> Tensor:
        """Combine the doubly reparameterised slopes of the two bounds."""
        return self._mixed(self._elbo.doubly_reparameterized(log_weights), self._iwae.doubly_reparameterized(log_weights))

    def signals(self, log_weights: Tensor) -> Tensor:
        """Combine the signals of the two bounds."""
        return self._mixed(self._elbo.signals(log_weights), self._iwae.signals(log_weights))

    def _mixed(self, elbo: Tensor, iwae: Tensor) -> Tensor:
        if self.beta in (0.0, 1.0):  # and the other may be infinite
            return elbo if self.beta else iwae
        return self.beta * elbo + (1 - self.beta) * iwae
