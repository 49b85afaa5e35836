"""The geometric path from a fitted normal proposal to the posterior, in the coordinates of the proposal."""

import math

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.path.state import State
from pyrovae.evaluation.fitting.normals import Normals


class FittedPath:
    r"""The densities :math:`f_\beta` of :math:`v = L^{-1}(u - m)`, from :math:`f_0 = N(0, I)`.

    The posterior is close to :math:`N(0, I)` in these coordinates, so that one step size serves all directions.

    Args:
        path: the densities of one batch in unconstrained space; its end is taken.
        normals: the fitted proposals.
        chains: the number K of chains a datum.
    """

    compiled = False

    def __init__(self, path: Path, normals: Normals, chains: int) -> None:
        self._path, self._normals, self.chains = path, normals, chains

    def sample_initial(self) -> Tensor:
        r"""Draw from :math:`f_0`, shape ``(K, B, D)``."""
        loc = self._normals.loc
        return torch.randn(self.chains, *loc.shape, dtype=loc.dtype, device=loc.device)

    def begin(self, u: Tensor) -> State:
        """Evaluate the path where chains begin; where the programs fail, a chain stays there with a weight of NaN."""
        return self.at(u, u)

    def at(self, u: Tensor, safe: Tensor) -> State:
        """Evaluate the path at ``u``, with NaN where the programs fail, which they do not at the positions ``safe``."""
        log_f1, gradient = self._path.joint(self._normals.coloured(u), self._normals.coloured(safe))
        log_f0 = -0.5 * (u.square().sum(-1) + u.shape[-1] * math.log(2.0 * math.pi))
        whitened = self._normals.whitened_gradient(gradient)
        return State(u, log_f0, log_f1 + self._normals.log_det, -u, whitened)
