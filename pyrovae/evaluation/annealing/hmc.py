"""Hamiltonian chains that follow a path of densities."""

from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.compiling.cuda_graph import Captured
from pyrovae.evaluation.annealing.path import Path, State

JITTER = 0.2
"""Step sizes vary by this part from transition to transition, so that no orbit closes on itself."""


class Kernel(NamedTuple):
    """What a transition is told, fixed before it: step size ``(B,)`` and scales ``(B, D)``."""

    step_size: Tensor
    scale: Tensor


def transition(path: Path, state: State, beta: Tensor, kernel: Kernel, steps: int) -> tuple[State, Tensor, Tensor]:
    r"""One Hamiltonian transition that leaves :math:`f_\beta` invariant; also which chains moved, and whose moves failed.

    A move fails where the programs do on its way, or a density or a gradient is no number; the chain then stays. So it
    would on the way back, which leads through the same places. Both are of shape ``(K, B)``.
    """
    jitter = 1.0 + JITTER * (2.0 * torch.rand_like(state.log_f0) - 1.0)
    length = (kernel.step_size * jitter)[..., None] * kernel.scale
    momentum = torch.randn_like(state.u)
    before = state.log_f(beta) - momentum.square().sum(-1) / 2.0
    new, lost = state, state.undefined
    failed = lost & ~state.impossible
    momentum = momentum + length / 2.0 * new.slope(beta)
    for step in range(steps):
        new = path.at(torch.where(lost[..., None], state.u, new.u + length * momentum), state.u)
        failed, lost = failed | (new.undefined & ~new.impossible & ~lost), lost | new.undefined
        slope = torch.where(lost[..., None], 0.0, new.slope(beta))
        momentum = momentum + (length if step + 1 < steps else length / 2.0) * slope
    after = new.log_f(beta) - momentum.square().sum(-1) / 2.0
    accepted = ~lost & (torch.rand_like(before).log() < after - before)
    return new.where(accepted, state), accepted, failed


class Chains:
    """Chains of a path, moved in place; on a CUDA device, where the path is compiled, by replays of one graph.

    Attributes:
        state: where they are.
        accepted: whether each of them moved in the last transition, shape ``(K, B)``.
        failed: how many moves of each have failed so far, shape ``(K, B)``.

    Args:
        path: the densities.
        u: where the chains begin, shape ``(K, B, D)``.
        steps: the leapfrog steps of a transition.
    """

    def __init__(self, path: Path, u: Tensor, steps: int) -> None:
        self.state = path.begin(u.clone())
        self.accepted = torch.zeros_like(self.state.log_f0, dtype=torch.bool)
        self.failed = torch.zeros_like(self.state.log_f0, dtype=torch.int64)
        self._path, self._steps = path, steps
        self._beta = torch.zeros_like(self.state.log_f0[0])
        self._kernel = Kernel(torch.zeros_like(self._beta), torch.zeros_like(u[0]))
        self._captured = Captured(self._move, u.device) if path.compiled and u.is_cuda else None

    def move(self, beta: Tensor, kernel: Kernel) -> None:
        """One transition at temperatures of shape ``(B,)``."""
        for place, value in zip((self._beta, *self._kernel), (beta, *kernel), strict=True):
            place.copy_(value)
        if self._captured is None:
            self._move()
        else:
            self._captured.run(1)

    def _move(self) -> None:
        moved, accepted, failed = transition(self._path, self.state, self._beta, self._kernel, self._steps)
        for place, value in zip((*self.state, self.accepted), (*moved, accepted), strict=True):
            place.copy_(value)
        self.failed.add_(failed)
