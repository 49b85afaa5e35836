"""The settings that :func:`annealed_importance_sampling` and :func:`bidirectional` share."""

from dataclasses import dataclass
from typing import get_args

import torch

from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.annealing.kernels.hamiltonian import Hamiltonian
from pyrovae.evaluation.annealing.kernels.kernel import Kernel
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class AnnealingSettings:
    """The arguments of :func:`annealed_importance_sampling` after the pair and the data; they are described there.

    Raises:
        InputError: for a number below one, and for an unknown name of a start or a schedule.
    """

    num_chains: int
    temperatures: int
    start: Start
    schedule: Schedule
    steps: int
    seed: int
    device: torch.device | str | None
    compile: bool | None
    progress: bool
    max_rows: int | None

    def __post_init__(self) -> None:
        require_positive(num_chains=self.num_chains, temperatures=self.temperatures, steps=self.steps)
        require_positive(max_rows=self.max_rows)
        for name, words in (("start", Start), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(words):
                expected = ", ".join(map(repr, get_args(words)))
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {expected}")

    @property
    def kernel(self) -> Kernel:
        """The transition kernel."""
        return Hamiltonian(self.steps)
