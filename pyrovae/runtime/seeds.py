"""Seeded random numbers that leave the caller's generators as they were."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.errors import InputError

Seed = int | Sequence[int] | NDArray[Any]
"""A seed for all data, or one per datum, which alone decides the noise of that datum."""


@contextmanager
def seeded(seed: int, device: torch.device | str | None = None) -> Iterator[None]:
    """Draw from generators seeded by ``seed``, and restore the caller's generators on leaving.

    These are the CPU's generator, and that of ``device`` where it is a CUDA device; no other device is touched.
    """
    device = torch.device("cpu" if device is None else device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        set_seed(seed, device)
        yield


def set_seed(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator, and that of ``device`` if it is a CUDA device; no other is touched."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


class GeneratorState:
    """State of a device's random generator, to repeat its draws."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def restore(self) -> None:
        """Restore the generator."""
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._state, self._device)
        else:
            torch.set_rng_state(self._state)


def seed_of(seed: int, index: int) -> int:
    """Derive a seed for an index."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


@dataclass(frozen=True)
class Seeds:
    """Seeds of the noise of each batch.

    Attributes:
        seed: one number for all data, of which every batch makes one of its own, or a list of one a datum.
    """

    seed: int | list[int]

    @classmethod
    def parse(cls, seed: Seed, number: int) -> Self:
        """Make the seeds of ``number`` data.

        Raises:
            InputError: where there are several, and not as many as data.
        """
        if isinstance(seed, int | np.integer):
            return cls(int(seed))
        if len(seed) != number:
            raise InputError(f"there are {len(seed)} seeds and {number} data; expected one for all data, or one per datum")
        return cls([int(each) for each in seed])

    @property
    def alone(self) -> bool:
        """Whether every datum has its own seed, and is a batch of its own."""
        return isinstance(self.seed, list)

    @property
    def first(self) -> int:
        """One of the seeds, for what is drawn before the first batch."""
        return self.seed[0] if isinstance(self.seed, list) else self.seed

    def batch_seed(self, index: int) -> int:
        """The seed of a batch; that of a datum that is alone is what it would be if there were no other."""
        return seed_of(self.seed[index], 0) if isinstance(self.seed, list) else seed_of(self.seed, index)

    def others(self, rows: NDArray[np.bool_], time: int = 1) -> "Seeds":
        """Derive other seeds, for some of the data, at the first or a later time."""
        if isinstance(self.seed, int):
            return Seeds(seed_of(self.seed, time))
        return Seeds([seed_of(seed, time) for seed, chosen in zip(self.seed, rows, strict=True) if chosen])


def seeds_of_rows(x: NDArray[Any], seed: int = 0) -> list[int]:
    """A seed for each row of ``x``, shape ``(N, ...)``, made of its numbers and of ``seed`` alone: equal rows share one."""
    key = int(seed).to_bytes(8, "little")
    rows = np.ascontiguousarray(x + 0.0)  # minus zero is zero
    return [int.from_bytes(blake2b(row.tobytes(), digest_size=8, key=key).digest()) >> 1 for row in rows]
