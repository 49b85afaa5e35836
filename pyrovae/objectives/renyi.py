"""The variational Renyi bound."""

import math

from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.power_mean import PowerMean


class Renyi(PowerMean):
    r"""The variational Renyi bound.

    .. math::
        \mathcal L_\alpha(x) = \frac1{1 - \alpha} \log E_q \big[ w^{1 - \alpha} \big], \qquad
        \hat{\mathcal L}_\alpha = \frac1{1 - \alpha} \log \frac1K \sum_{k=1}^K w_k^{1 - \alpha}

    of each datum, shape ``(K, B) -> (B,)``, in nats; what is reported and maximised is the mean of the estimate of K
    particles. It is the ELBO at :math:`\alpha = 1` and IWAE at 0, which are its limits there, and falls as :math:`\alpha`
    grows. For :math:`\alpha < 0` it is above IWAE, and above :math:`\log p(x)` once K is large:
    :class:`~pyrovae.objectives.CUBO`.

    Args:
        alpha: the order :math:`\alpha`.
        num_particles: the number K of draws a datum.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`).

    Raises:
        InputError: for an alpha that is not finite; in training, for a guide that the estimator cannot differentiate; for a
            site with a scale of its own.

    References:
        | Renyi Divergence Variational Inference (Li & Turner, 2016), equations 4 and 5
        | https://arxiv.org/abs/1602.02311
    """

    def __init__(self, alpha: float = 0.5, num_particles: int = 5, estimator: Estimator = "reparameterized") -> None:
        if not math.isfinite(alpha):
            raise InputError(f"alpha is {alpha}; expected a finite number")
        super().__init__(1, num_particles, estimator)
        self.alpha = alpha

    @property
    def power(self) -> float:
        return 1.0 - self.alpha
