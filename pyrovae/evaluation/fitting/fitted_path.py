"""The geometric path from a fitted normal proposal to the posterior, in the coordinates of the proposal."""

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.path.state import State
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures


class FittedPath:
    r"""The densities :math:`f_\beta` of :math:`v = L^{-1}(u - m)`, from :math:`f_0`, the fitted proposal.

    The posterior is close to :math:`N(0, I)` in these coordinates, so that one step size serves all directions.

    Args:
        path: the densities of one batch in unconstrained space; its end is taken.
        fitted: the fitted proposals, whose first part gives :math:`m` and :math:`L`.
        chains: the number K of chains a datum.
    """

    compiled = False

    def __init__(self, path: Path, fitted: NormalMixtures, chains: int) -> None:
        self._path, self._fitted, self.chains = path, fitted, chains
        self._normals = fitted.parts[0]

    def sample_initial(self) -> Tensor:
        r"""Draw from :math:`f_0`, shape ``(K, B, D)``."""
        return self._normals.whitened(self._fitted.sample(self.chains))

    def begin(self, u: Tensor) -> State:
        """Evaluate the path where chains begin; where the programs fail, a chain stays there with a weight of NaN."""
        return self.at(u, u)

    def at(self, u: Tensor, safe: Tensor) -> State:
        """Evaluate the path at ``u``, with NaN where the programs fail, which they do not at the positions ``safe``."""
        place = self._normals.coloured(u)
        ends = [self._proposal(place), self._path.joint(place, self._normals.coloured(safe))]
        (log_f0, gradient_0), (log_f1, gradient_1) = (
            (density + self._normals.log_det, self._normals.whitened_gradient(gradient)) for density, gradient in ends
        )
        return State(u, log_f0, log_f1, gradient_0, gradient_1)

    def _proposal(self, place: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            place = place.detach().requires_grad_()
            log_density = self._fitted.log_density(place)
            return log_density.detach(), torch.autograd.grad(log_density.sum(), place)[0]
