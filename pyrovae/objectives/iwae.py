"""The importance-weighted bound."""

from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.power_mean import PowerMean


class IWAE(PowerMean):
    r"""The importance-weighted bound.

    .. math::
        \mathcal L_K(x) = E_{z_1, \dots, z_K \sim q(z \mid x)} \Big[ \log \frac1K \sum_{k=1}^K w_k \Big],
        \qquad \mathcal L_1 \le \mathcal L_K \le \mathcal L_{K+1} \le \log p(x)

    estimated by one draw of the bracket, the log-mean-exp over particles of :math:`\log w`, shape ``(K, B) -> (B,)``, in
    nats, for each datum by itself.

    Args:
        num_particles: the number :math:`K` of draws a datum; more of them tighten the bound.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`). With more particles the signal-to-noise
            ratio of the guide's gradient falls (Rainforth et al., 2018, arXiv:1802.04537); with ``dreg`` it rises where the
            tails of the weights are light.

    Raises:
        InputError: in training, for a guide that the estimator cannot differentiate; for a site with a scale of its own.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), equation 8
        | https://arxiv.org/abs/1509.00519
    """

    def __init__(self, num_particles: int = 5, estimator: Estimator = "reparameterized") -> None:
        super().__init__(1, num_particles, estimator)

    @property
    def power(self) -> float:
        return 1.0
