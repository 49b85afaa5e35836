"""The mean of several importance-weighted bounds."""

from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.power_mean import PowerMean, require_groups


class MIWAE(PowerMean):
    r"""The mean of M importance-weighted bounds of K particles each.

    .. math::
        \mathcal L_{M, K}(x) = E \Big[ \frac1M \sum_{m=1}^M \log \frac1K \sum_{k=1}^K w_{mk} \Big] = \mathcal L_K(x)

    M lowers the variance of IWAE's estimate and leaves its value; K tightens the bound. Shape ``(M K, B) -> (B,)``, in nats;
    particles of one group follow one another.

    Args:
        num_groups: the number M of bounds to average.
        group_size: the number K of draws within each.
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`).

    Raises:
        InputError: in training, for a guide that the estimator cannot differentiate; for a site with a scale of its own.

    References:
        | Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018)
        | https://arxiv.org/abs/1802.04537
    """

    def __init__(self, num_groups: int = 4, group_size: int = 5, estimator: Estimator = "reparameterized") -> None:
        require_groups("MIWAE", num_groups, group_size)
        super().__init__(num_groups, group_size, estimator)

    @property
    def power(self) -> float:
        return 1.0
