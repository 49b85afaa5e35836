"""Means over the data of an epoch, in nats, summed where the tensors are."""

import torch
from torch import Tensor

from pyrovae.objectives import Measurement, Objective

_NAMES = ("bound", "reconstruction", "kl")


def number(objective: Objective) -> int:
    """Count the means of an objective: of bound, reconstruction, KL and its parts."""
    return len(_NAMES) + len(objective.parts)


class Means:
    """The means over data of bound, reconstruction, KL and the objective's parts; sums stay on the device until read.

    Attributes:
        sums: the sums so far, float64.
        count: the number of their data.
    """

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.sums = torch.zeros(number(objective), dtype=torch.float64, device=device)
        self.count = 0
        self._names = (*_NAMES, *objective.parts)

    def add(self, measured: Measurement) -> None:
        """Add the data of one batch."""
        self.sums += sums(measured)
        self.count += measured.bound.numel()

    def read(self, part: str) -> dict[str, float]:
        """Return the means, by names that begin with ``part``; nothing where there are no data."""
        means = (self.sums / self.count).tolist() if self.count else []
        return {f"{part}_{name}": mean for name, mean in zip(self._names, means, strict=bool(means))}


def sums(measured: Measurement) -> Tensor:
    """Sum bound, reconstruction, KL and the objective's parts over the data of a batch."""
    terms = torch.stack([measured.bound, measured.reconstruction, measured.kl])
    return torch.cat([terms, measured.parts]).double().sum(1)
