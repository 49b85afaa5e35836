"""Noise of one's own: estimates that repeat, and a caller whose random numbers go on as if nothing had been drawn."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: torch.device | str | None = None) -> Iterator[None]:
    """Draw from generators that start at ``seed``, and leave the caller's generators where they were.

    These are the CPU's generator, and that of ``device`` where it is a CUDA device; no other device is touched.
    """
    device = torch.device("cpu" if device is None else device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        set_seed(seed, device)
        yield


def set_seed(seed: int, device: torch.device) -> None:
    """Start the CPU's generator, and that of ``device`` where it is a CUDA device, at ``seed``; no other is touched."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def seed_of(seed: int, index: int) -> int:
    """A seed of its own for each index."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
