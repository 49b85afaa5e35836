"""What is written down of each epoch: means over data, in nats, gathered where the tensors live."""

import torch
from torch import Tensor

from pyrovae.objectives import Measurement

_names = ("bound", "reconstruction", "kl")


class Means:
    """The means over data of bound, reconstruction and KL; sums stay on the device until they are read."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, measured: Measurement) -> None:
        """Add the data of one batch."""
        terms = torch.stack([measured.bound, measured.reconstruction, measured.kl]).double().sum(1)
        self._sums = terms if self._sums is None else self._sums + terms
        self._count += measured.bound.numel()

    def read(self, part: str) -> dict[str, float]:
        """The means, by names that begin with ``part``."""
        if self._sums is None:
            return {}
        means = (self._sums / self._count).tolist()
        return {f"{part}_{name}": mean for name, mean in zip(_names, means, strict=True)}
