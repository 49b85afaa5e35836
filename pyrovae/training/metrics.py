"""What is written down of each epoch: means over data, in nats, gathered where the tensors live."""

import torch
from torch import Tensor

from pyrovae.objectives import Measurement

_names = ("bound", "reconstruction", "kl")


class Means:
    """The means over data of bound, reconstruction and KL; sums stay on the device until they are read.

    Attributes:
        sums: the three sums so far, float64.
        count: of how many data.
    """

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(_names), dtype=torch.float64, device=device)
        self.count = 0

    def add(self, measured: Measurement) -> None:
        """Add the data of one batch."""
        self.sums += sums(measured)
        self.count += measured.bound.numel()

    def read(self, part: str) -> dict[str, float]:
        """The means, by names that begin with ``part``; nothing where there are no data."""
        means = (self.sums / self.count).tolist() if self.count else []
        return {f"{part}_{name}": mean for name, mean in zip(_names, means, strict=bool(means))}


def sums(measured: Measurement) -> Tensor:
    """Of bound, reconstruction and KL over the data of a batch."""
    return torch.stack([measured.bound, measured.reconstruction, measured.kl]).double().sum(1)
