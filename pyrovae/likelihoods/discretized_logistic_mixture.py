"""The likelihood of grey levels by a mixture of discretized logistic distributions."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.distributions.discretized_logistic import DiscretizedLogistic as Rounded
from pyrovae.distributions.discretized_logistic import DiscretizedLogisticMixture as Mixture
from pyrovae.errors import InputError
from pyrovae.likelihoods.discretized_logistic import checked_levels, location_of
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.networks import Shape


class DiscretizedLogisticMixture(Likelihood):
    r"""Independent pixels of levels :math:`k / (L - 1)`, each a mixture of rounded logistic variables.

    .. math::
        p(x \mid z) = \prod_i \sum_{c=1}^{C} \pi_{ci}
        \left[ F\left(\frac{x_i + h - \mu_{ci}}{s_{ci}}\right) - F\left(\frac{x_i - h - \mu_{ci}}{s_{ci}}\right) \right],
        \qquad F(t) = \frac{1}{1 + e^{-t}}, \quad h = \frac{1}{2 (L - 1)},

    with all the mass beyond them in the lowest and the highest level. The decoder gives the logits of :math:`\pi`,
    :math:`\mu` and :math:`r`, of shape ``(3, components, *event_shape)``, and :math:`s = \log(1 + e^{r}) + 10^{-3}`. The
    channels of a pixel are independent given z, as its neighbours are; in PixelCNN++ they follow one another.

    Args:
        event_shape: shape of one datum.
        components: the number :math:`C` of components of a pixel.
        levels: the number :math:`L` of levels.
        scale: where the scales begin.

    Raises:
        InputError: for no component, less than two levels, and for a scale that is not positive.

    References:
        | PixelCNN++ (Salimans, Karpathy, Chen & Kingma, 2017), section 2.1
        | https://arxiv.org/abs/1701.05517
    """

    def __init__(self, event_shape: Shape, components: int = 10, levels: int = 256, scale: float = 0.1) -> None:
        super().__init__(event_shape)
        if components < 1:
            raise InputError(f"components is {components}; expected at least 1")
        if not scale > 1e-3 or math.isinf(scale):
            raise InputError(f"scale is {scale}; expected a finite number above 0.001, the smallest scale")
        self.components = components
        self.levels = checked_levels(levels)
        self.scale = scale

    @property
    def param_shape(self) -> Shape:
        return (3, self.components, *self.event_shape)

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        components_last = params.movedim(1 - len(self.param_shape), -1)
        logits, loc, raw_scale = components_last.unbind(-len(self.param_shape))
        return self._mixture(logits, loc, softplus(raw_scale) + 1e-3).to_event(len(self.event_shape))

    def _mixture(self, logits: Tensor, loc: Tensor, scale: Tensor) -> Mixture:
        """Make the mixture from parameters whose last dimension counts the components."""
        return Mixture(dist.Categorical(logits=logits), Rounded(loc, scale, self.levels))

    def start(self, mean: Tensor) -> Tensor:
        """Place components of equal weight next to one another around this mean, at least 1 in 1,000 off both ends."""
        offsets = self.scale * torch.linspace(-1.0, 1.0, self.components + 2, dtype=mean.dtype, device=mean.device)[1:-1]

        def mean_at(loc: Tensor) -> Tensor:
            locs = loc[..., None] + offsets
            return self._mixture(torch.zeros_like(locs), locs, torch.full_like(locs, self.scale)).mean

        loc = location_of(mean, mean_at)[..., None] + offsets
        raw_scale = torch.full_like(loc, math.log(math.expm1(self.scale - 1e-3)))
        return torch.stack([torch.zeros_like(loc), loc, raw_scale]).movedim(-1, 1)
