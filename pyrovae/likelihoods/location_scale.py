"""The base of likelihoods of real-valued data with a location and one of three scales."""

import math
from abc import abstractmethod
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyrovae.errors import InputError
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.networks import Shape

ScaleOf = Literal["fixed", "shared", "pixel"]


class LocationScale(Likelihood):
    r"""Independent pixels, each of the same density around a location :math:`\mu_i`, stretched by a scale :math:`\sigma_i`.

    The scale is one of three:

    - ``fixed``: :math:`\sigma_i` = ``scale``; the decoder gives :math:`\mu`, of shape ``event_shape``;
    - ``shared``: one :math:`\sigma` for all pixels, learned, begun at ``scale``; the decoder gives :math:`\mu`;
    - ``pixel``: the decoder gives :math:`\mu` and :math:`s`, of shape ``(2, *event_shape)``, and
      :math:`\sigma_i = \log(1 + e^{s_i}) + 10^{-3}`; the lower bound keeps the density of a constant pixel finite.

    Args:
        event_shape: shape of one datum.
        scale: the scale, or where it begins.
        learned: which of the three.

    Raises:
        InputError: for a scale that is not positive, and for another word than these three.
    """

    log_scale: Tensor

    def __init__(self, event_shape: Shape, scale: float = 1.0, learned: ScaleOf = "fixed") -> None:
        super().__init__(event_shape)
        if not scale > 0.0 or math.isinf(scale):
            raise InputError(f"scale is {scale}; expected a finite positive number")
        if learned not in ("fixed", "shared", "pixel"):
            raise InputError(f"learned is {learned!r}; expected 'fixed', 'shared' or 'pixel'")
        self.learned = learned
        log_scale = torch.tensor(float(scale)).log()
        if learned == "shared":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def param_shape(self) -> Shape:
        return (2, *self.event_shape) if self.learned == "pixel" else self.event_shape

    @abstractmethod
    def around(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        """Return the distribution of each pixel, given its location, which is its mean, and its scale."""

    def forward(self, params: Tensor) -> dist.TorchDistribution:
        """Return the distribution of one datum, given ``params`` of shape ``(*batch, *param_shape)``."""
        loc, scale = params, self.log_scale.exp()
        if self.learned == "pixel":
            loc, raw_scale = params.unbind(-len(self.param_shape))
            scale = softplus(raw_scale) + 1e-3
        return self.around(loc, scale).to_event(len(self.event_shape))

    def start(self, mean: Tensor) -> Tensor:
        """Return the mean itself and, where the scale comes from the decoder, the value that makes it ``scale``."""
        if self.learned != "pixel":
            return mean
        softplus_scale = (self.log_scale.exp() - 1e-3).clamp_min(1e-6)
        raw_scale = softplus_scale + (-softplus_scale).expm1().neg().log()
        return torch.stack([mean, raw_scale.expand_as(mean)])
