"""The Gaussian proposal whose covariance is diagonal plus a matrix of low rank."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.errors import InputError
from pyrovae.guides.guide import Guide
from pyrovae.networks import Build, Shape

_LONGEST = 100.0
"""Bound on an entry of W, in units of the standard deviation that is independent of the others."""


class LowRankNormal(Guide):
    r"""The Gaussian proposal whose covariance is diagonal plus a matrix of low rank.

    .. math::
        q(z \mid x) = N\big(z; \mu(x), W W^\top + \operatorname{diag} \sigma(x)^2\big), \qquad
        \sigma = \log(1 + e^{s}) + 10^{-6}, \quad W_{dr} = 100\, \sigma_d \tanh (v_{dr} / 100),

    where :math:`(\mu, s, v^\top)` is the encoder's output, of shape ``(2 + rank, latent_dim)``; on the site ``z``. In units
    of :math:`\sigma`, and bounded, W leaves :math:`I + W^\top \operatorname{diag}(\sigma^{-2}) W` with a Cholesky factor in
    single precision, too.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.
        rank: the number of columns of W.

    Raises:
        InputError: where the rank is less than 1.

    References:
        | Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende, Mohamed & Wierstra, 2014),
        | section 4.3, of which this is the covariance instead of the precision
        | https://arxiv.org/abs/1401.4082
    """

    def __init__(self, event_shape: Shape, latent_dim: int, encoder: Build, rank: int = 2) -> None:
        if rank < 1:
            raise InputError(f"rank is {rank}; expected at least 1: for rank 0 take DiagonalNormal")
        self.rank = rank
        super().__init__(event_shape, latent_dim, encoder)

    @property
    def param_shape(self) -> Shape:
        return (2 + self.rank, self.latent_dim)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        loc, raw_scale, raw_factor = params[..., 0, :], params[..., 1, :], params[..., 2:, :].mT
        scale = softplus(raw_scale) + 1e-6
        factor = scale[..., None] * _LONGEST * torch.tanh(raw_factor / _LONGEST)
        return dist.LowRankMultivariateNormal(loc, factor, scale.square())
