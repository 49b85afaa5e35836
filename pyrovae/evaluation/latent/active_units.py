"""The number of active units: latent dimensions whose proposal mean varies with the data."""

from typing import NamedTuple

from torch import Tensor

THRESHOLD = 0.01


class ActiveUnits(NamedTuple):
    """The number of active units, and the variance over the data of each dimension's mean, a tensor of shape ``(D,)``."""

    number: int
    variances: Tensor


def active_units(means: Tensor, threshold: float = THRESHOLD) -> ActiveUnits:
    r"""Count the latent dimensions whose proposal mean varies with the data.

    .. math::
        A_d = \mathrm{Var}_x\left(E_{q(z \mid x)}[z_d]\right), \qquad d \text{ is active where } A_d > 0.01

    Args:
        means: what :func:`posterior_means` returns, shape ``(N, D)``.
        threshold: the variance above which a dimension is active.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 5.2
        | https://arxiv.org/abs/1509.00519
    """
    variances = means.var(0)
    return ActiveUnits(int((variances > threshold).sum()), variances)
