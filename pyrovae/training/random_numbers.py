"""The random numbers of a training: a function of the seed and the epoch, and kept within an epoch to go on from."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.runtime.processes import Processes
from pyrovae.runtime.seeds import set_seed


class RandomNumbers:
    """The random generators of a training, of each process its own.

    Args:
        seed: of the training.
        device: where it computes.
        processes: those that train together.
    """

    def __init__(self, seed: int, device: torch.device, processes: Processes) -> None:
        self.seed = seed
        self._device = device
        self._processes = processes
        self._restored: dict[str, Any] | None = None

    def begin(self, epoch: int, batch: int) -> None:
        """Set all generators to what they are at a batch of an epoch, or to what was restored."""
        if self._restored is not None:
            restore_random_states(self._restored, self._device)
        if self._restored is None or not batch:  # torch's generators are those of an epoch, NumPy's and Python's go on
            rank = self._processes.rank
            numbers = [self.seed, epoch, *([1 + rank] if rank else []), *([batch] if batch else [])]
            set_seed(seed_of_all(*numbers), self._device)
        self._restored = None

    def begin_validation(self) -> None:
        """Set torch's generators to the noise that validation has in every epoch."""
        set_seed(seed_of_all(self.seed, 0), self._device)

    def order(self, epoch: int, number: int) -> Tensor:
        """Return the order of so many data in an epoch, the same in all processes."""
        return torch.randperm(number, generator=torch.Generator().manual_seed(seed_of_all(self.seed, epoch, 1)))

    def state(self) -> list[dict[str, Any]]:
        """Return the states of all generators, of each process. All processes must call it."""
        return self._processes.gather(random_states(self._device))

    def restore(self, states: list[dict[str, Any]]) -> None:
        """Let the next :meth:`begin` go on from there, unless the number of processes has changed."""
        same_number = len(states) == self._processes.number
        self._restored = states[self._processes.rank] if same_number else None


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of torch's generators on the CPU and on this device, NumPy's and Python's."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 (a data set of the user's may draw from it)
    state = {"cpu": torch.get_rng_state(), "numpy": _plain(numpy), "python": random.getstate()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Set all generators to their former states; that of a CUDA device that was none before stays as it is."""
    torch.set_rng_state(states["cpu"])
    np.random.set_state(_arrays(states["numpy"]))  # noqa: NPY002
    random.setstate(states["python"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def seed_of_all(*numbers: int) -> int:
    """Return a seed of its own for each sequence of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _plain(state: Any) -> Any:
    """NumPy's state with tensors for arrays, which load without unpickling."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return torch.from_numpy(state.astype(np.int64)) if isinstance(state, np.ndarray) else state


def _arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _arrays(value) for name, value in state.items()}
    return state.numpy().astype(np.uint32) if isinstance(state, Tensor) else state
