"""The discretized logistic likelihood of grey levels."""

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.distributions.discretized_logistic import DiscretizedLogistic as Rounded
from pyrovae.errors import InputError
from pyrovae.likelihoods.location_scale import LocationScale, ScaleOf
from pyrovae.networks import Shape


class DiscretizedLogistic(LocationScale):
    r"""Independent pixels of levels :math:`k / (L - 1)`, each a rounded logistic variable.

    .. math::
        p(x \mid z) = \prod_i \left[ F\left(\frac{x_i + h - \mu_i}{s_i}\right) - F\left(\frac{x_i - h - \mu_i}{s_i}\right)
        \right], \qquad F(t) = \frac{1}{1 + e^{-t}}, \quad h = \frac{1}{2 (L - 1)},

    with all the mass beyond them in the lowest and the highest level. The data are pictures of bytes, divided by 255, as
    this library reads them; their log-likelihoods are those of the bytes, and can be told in bits per dimension.

    Args:
        event_shape: shape of one datum.
        scale: the scale, or where it begins.
        learned: ``fixed``: :math:`s_i` = ``scale``, and the decoder gives :math:`\mu`, of shape ``event_shape``; ``shared``:
            one :math:`s` for all pixels, learned; ``pixel``: the decoder gives :math:`\mu` and :math:`r`, of shape
            ``(2, *event_shape)``, and :math:`s_i = \log(1 + e^{r_i}) + 10^{-3}`.
        levels: the number :math:`L` of levels.

    Raises:
        InputError: for less than two levels, a scale that is not positive, and for another word than those three.

    References:
        | Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), section 5
        | https://arxiv.org/abs/1606.04934
        | PixelCNN++ (Salimans, Karpathy, Chen & Kingma, 2017), section 2.1
        | https://arxiv.org/abs/1701.05517
    """

    def __init__(self, event_shape: Shape, scale: float = 0.1, learned: ScaleOf = "shared", levels: int = 256) -> None:
        super().__init__(event_shape, scale, learned)
        self.levels = checked_levels(levels)

    def around(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        return Rounded(loc, scale, self.levels)

    def start(self, mean: Tensor) -> Tensor:
        """Find the location at which rounding leaves this mean, at least 1 in 1,000 off both ends."""
        scale = self.log_scale.detach().exp()
        loc = location_of(mean, lambda loc: Rounded(loc, scale.expand_as(loc), self.levels).mean)
        return super().start(loc)


def checked_levels(levels: int) -> int:
    """Return the number of levels; raise an InputError for fewer than two."""
    if levels < 2:
        raise InputError(f"levels is {levels}; expected at least 2")
    return levels


@torch.no_grad()
def location_of(mean: Tensor, mean_at: Callable[[Tensor], Tensor]) -> Tensor:
    """Find the location at which an increasing function has these values, by bisection."""
    mean = mean.clamp(1e-3, 1 - 1e-3)
    low, high = torch.full_like(mean, -1.0), torch.full_like(mean, 2.0)
    while not (mean_at(low) <= mean).all() or not (mean_at(high) >= mean).all():
        low, high = 2 * low, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        below = mean_at(middle) < mean
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
