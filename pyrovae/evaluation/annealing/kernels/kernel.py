r"""The interface of a transition kernel :math:`K_\beta`.

A kernel knows no programs: it sees the path of densities alone. Another one is a file beside ``hamiltonian.py`` with a class
of this interface, and a line where :class:`~pyrovae.evaluation.annealing.settings.AnnealingSettings` chooses it.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

from pyrovae.evaluation.annealing.path.densities import Densities
from pyrovae.evaluation.annealing.path.state import State


class Tuning(NamedTuple):
    """The tuning of one transition, which pilot chains find, and which is fixed before the transition.

    Attributes:
        step_size: shape ``(B,)``.
        scale: the standard deviation of each unconstrained latent dimension, shape ``(B, D)``.
    """

    step_size: Tensor
    scale: Tensor


class Transition(NamedTuple):
    """The outcome of one transition.

    Attributes:
        state: the chains after it.
        accepted: whether each chain moved, shape ``(K, B)``.
        failed: whether its move was rejected because the programs failed on its way, shape ``(K, B)``.
    """

    state: State
    accepted: Tensor
    failed: Tensor


class Kernel(Protocol):
    r"""A Markov transition that leaves :math:`f_\beta` invariant, at any tuning that is fixed before it."""

    def __call__(self, path: Densities, state: State, beta: Tensor, tuning: Tuning) -> Transition:
        """Move chains once, at inverse temperatures ``beta`` of shape ``(B,)``."""
        ...
