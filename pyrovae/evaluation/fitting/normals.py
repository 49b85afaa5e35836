"""Normal distributions of the unconstrained latents, one a datum."""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Normals(NamedTuple):
    r"""Normal distributions :math:`N(m_b, L_b L_b^\top)`, one for each of B data.

    Attributes:
        loc: :math:`m`, shape ``(B, D)``.
        scale_tril: :math:`L`, lower triangles, shape ``(B, D, D)``.
    """

    loc: Tensor
    scale_tril: Tensor

    @classmethod
    def from_draws(cls, draws: Tensor) -> Self:
        """Take mean and standard deviations of draws of shape ``(K, B, D)``; a dimension without spread gets 0.1."""
        deviation = draws.std(0)
        return cls(draws.mean(0), torch.diag_embed(torch.where(deviation > 0.0, deviation, 0.1)))

    @property
    def log_det(self) -> Tensor:
        r"""Compute :math:`\log \det L`, shape ``(B,)``."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def widened(self, factor: float | Tensor) -> Self:
        """Multiply the standard deviations in every direction by a number, or by one for each datum, ``(B,)``."""
        factors = torch.as_tensor(factor, dtype=self.loc.dtype, device=self.loc.device)
        return self._replace(scale_tril=factors[..., None, None] * self.scale_tril)

    def rows(self, index: Tensor) -> Self:
        """Choose some of the data, each as often as it is named."""
        return self._replace(loc=self.loc[index], scale_tril=self.scale_tril[index])

    def where(self, chosen: Tensor, other: "Normals") -> Self:
        """Take these for the chosen data, ``(B,)``, and the others for the rest."""
        loc = torch.where(chosen[:, None], self.loc, other.loc)
        return self._replace(loc=loc, scale_tril=torch.where(chosen[:, None, None], self.scale_tril, other.scale_tril))

    def coloured(self, v: Tensor) -> Tensor:
        r"""Map :math:`v` to :math:`m + L v`, shape ``(K, B, D)``."""
        return self.loc + (v.transpose(0, 1) @ self.scale_tril.mT).transpose(0, 1)

    def whitened(self, u: Tensor) -> Tensor:
        r"""Map :math:`u` to :math:`L^{-1} (u - m)`, shape ``(K, B, D)``."""
        deviations = (u - self.loc).permute(1, 2, 0)
        return torch.linalg.solve_triangular(self.scale_tril, deviations, upper=False).permute(2, 0, 1)

    def whitened_gradient(self, gradient: Tensor) -> Tensor:
        r"""Map a gradient with respect to :math:`m + L v` to that with respect to :math:`v`, shape ``(K, B, D)``."""
        return (gradient.transpose(0, 1) @ self.scale_tril).transpose(0, 1)

    def log_density(self, u: Tensor) -> Tensor:
        """Compute the log densities at positions of shape ``(K, B, D)``, shape ``(K, B)``, in nats."""
        constant = 0.5 * u.shape[-1] * math.log(2.0 * math.pi)
        return -0.5 * self.whitened(u).square().sum(-1) - self.log_det - constant
