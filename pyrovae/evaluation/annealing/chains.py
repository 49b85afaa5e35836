"""Chains that follow a path of densities."""

import torch
from torch import Tensor

from pyrovae.compiling.cuda_graph import Captured
from pyrovae.evaluation.annealing.kernels.kernel import Kernel, Tuning
from pyrovae.evaluation.annealing.path.densities import Densities


class Chains:
    """Chains on a path, moved in place; on a CUDA device, where the path is compiled, by replays of one graph.

    Attributes:
        state: the positions, and the densities there.
        accepted: whether each chain moved in the last transition, shape ``(K, B)``.
        failed: how many moves of each chain have failed so far, shape ``(K, B)``.

    Args:
        path: the densities.
        u: where the chains begin, shape ``(K, B, D)``.
        kernel: the transition kernel.
    """

    def __init__(self, path: Densities, u: Tensor, kernel: Kernel) -> None:
        self.state = path.begin(u.clone())
        self.accepted = torch.zeros_like(self.state.log_f0, dtype=torch.bool)
        self.failed = torch.zeros_like(self.state.log_f0, dtype=torch.int64)
        self._path, self._kernel = path, kernel
        self._beta = torch.zeros_like(self.state.log_f0[0])
        self._tuning = Tuning(torch.zeros_like(self._beta), torch.zeros_like(u[0]))
        self._captured = Captured(self._move, u.device) if path.compiled and u.is_cuda else None

    def move(self, beta: Tensor, tuning: Tuning) -> None:
        """Move every chain once, at inverse temperatures of shape ``(B,)``."""
        for place, value in zip((self._beta, *self._tuning), (beta, *tuning), strict=True):
            place.copy_(value)
        if self._captured is None:
            self._move()
        else:
            self._captured.run(1)

    def _move(self) -> None:
        new, accepted, failed = self._kernel(self._path, self.state, self._beta, self._tuning)
        for place, value in zip((*self.state, self.accepted), (*new, accepted), strict=True):
            place.copy_(value)
        self.failed.add_(failed)
