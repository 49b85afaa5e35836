"""The Gaussian proposal with a full covariance."""

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrovae.guides.guide import Guide
from pyrovae.networks import Shape

_LONGEST = 100.0
"""Bound on an entry of N, in units of the standard deviation that is independent of the elements before."""


class FullRankNormal(Guide):
    r"""The Gaussian proposal with a full covariance.

    .. math::
        q(z \mid x) = N\big(z; \mu(x), L L^\top\big), \qquad L = \operatorname{diag}(\sigma) (I + N), \quad
        \sigma = \log(1 + e^{s}) + 10^{-6}, \quad N_{de} = 100 \tanh (r_{de} / 100) \;\text{for}\; e < d,

    where :math:`\mu` and a lower triangle, row by row, of :math:`s` on its diagonal and :math:`r` below it are the encoder's
    output, of length ``latent_dim + latent_dim * (latent_dim + 1) / 2``; on the site ``z``. In units of :math:`\sigma`, and
    bounded, N leaves the Cholesky factor L with an inverse in single precision, too.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.

    References:
        | An Introduction to Variational Autoencoders (Kingma & Welling, 2019), section 2.5.1
        | https://arxiv.org/abs/1906.02691
    """

    @property
    def param_shape(self) -> Shape:
        return (self.latent_dim + self.latent_dim * (self.latent_dim + 1) // 2,)

    def proposal(self, params: Tensor) -> dist.TorchDistribution:
        loc, entries = params[..., : self.latent_dim], params[..., self.latent_dim :]
        return dist.MultivariateNormal(loc, scale_tril=_cholesky_factor(_triangle(entries, self.latent_dim)))


def _triangle(entries: Tensor, size: int) -> Tensor:
    """Fill lower triangular matrices row by row with entries of shape ``(*batch, size * (size + 1) / 2)``."""
    row, column = torch.tril_indices(size, size, device=entries.device)
    matrix = entries.new_zeros(*entries.shape[:-1], size, size)
    matrix[..., row, column] = entries
    return matrix


def _cholesky_factor(raw: Tensor) -> Tensor:
    scale = softplus(raw.diagonal(dim1=-2, dim2=-1)) + 1e-6
    return torch.diag_embed(scale) + scale[..., None] * _LONGEST * torch.tanh(raw.tril(-1) / _LONGEST)
