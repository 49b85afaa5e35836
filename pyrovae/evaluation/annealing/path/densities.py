"""The interface of what chains follow."""

from typing import Protocol

from torch import Tensor

from pyrovae.evaluation.annealing.path.state import State


class Densities(Protocol):
    r"""Densities :math:`f_\beta` of one batch, for a number of chains: a ``Path``, or one in other coordinates."""

    @property
    def compiled(self) -> bool:
        """Whether evaluation is recorded and fused."""
        ...

    def sample_initial(self) -> Tensor:
        r"""Draw positions from :math:`f_0`, shape ``(K, B, D)``."""
        ...

    def begin(self, u: Tensor) -> State:
        """Evaluate the densities where chains begin."""
        ...

    def at(self, u: Tensor, safe: Tensor) -> State:
        """Evaluate the densities at ``u``, with NaN where they fail, which they do not at the positions ``safe``."""
        ...
