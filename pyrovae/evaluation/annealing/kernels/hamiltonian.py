"""Hamiltonian Monte Carlo."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.kernels.kernel import Transition, Tuning
from pyrovae.evaluation.annealing.path.densities import Densities
from pyrovae.evaluation.annealing.path.state import State

JITTER = 0.2
"""The relative range of the random step size of each transition, so that no orbit is periodic."""


@dataclass(frozen=True)
class Hamiltonian:
    r"""The Hamiltonian transition: leapfrog steps from a random momentum, accepted by Metropolis's rule.

    .. math::
        H(u, \rho) = -\log f_\beta(u) + \tfrac12 \lVert \rho \rVert^2, \qquad
        P(\text{accept}) = \min\big(1, \exp(H(u, \rho) - H(u', \rho'))\big)

    A move fails where the programs do on its way, or where a density or a gradient is not a number; the chain then stays
    where it is. The reverse move would fail as well, as it leads through the same places, so that :math:`f_\beta` is
    invariant all the same.

    Attributes:
        steps: the number of leapfrog steps, each a gradient of the model.

    References:
        | MCMC using Hamiltonian dynamics (Neal, 2011); https://arxiv.org/abs/1206.1901
    """

    steps: int

    def __call__(self, path: Densities, state: State, beta: Tensor, tuning: Tuning) -> Transition:
        """Move chains once."""
        jitter = 1.0 + JITTER * (2.0 * torch.rand_like(state.log_f0) - 1.0)
        length = (tuning.step_size * jitter)[..., None] * tuning.scale
        momentum = torch.randn_like(state.u)
        before = _log_density(state, momentum, beta)
        new, lost = state, state.undefined
        failed = lost & ~state.impossible
        momentum = momentum + length / 2.0 * new.gradient(beta)
        for step in range(self.steps):
            new = path.at(torch.where(lost[..., None], state.u, new.u + length * momentum), state.u)
            failed, lost = failed | (new.undefined & ~new.impossible & ~lost), lost | new.undefined
            gradient = torch.where(lost[..., None], 0.0, new.gradient(beta))
            momentum = momentum + (length if step + 1 < self.steps else length / 2.0) * gradient
        after = _log_density(new, momentum, beta)
        accepted = ~lost & (torch.rand_like(before).log() < after - before)
        return Transition(new.where(accepted, state), accepted, failed)


def _log_density(state: State, momentum: Tensor, beta: Tensor) -> Tensor:
    """The log density of positions and momenta together, minus H."""
    return state.log_f(beta) - momentum.square().sum(-1) / 2.0
