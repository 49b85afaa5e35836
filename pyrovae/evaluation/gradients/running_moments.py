"""Mean and variance of vectors that come one by one."""

import torch
from torch import Tensor


class RunningMoments:
    """The mean and the variance of the vectors added so far, in memory that does not grow with their number.

    Attributes:
        count: the number of vectors.
        mean: their mean, shape ``(size,)``, float64.

    Source: Welford, Note on a Method for Calculating Corrected Sums of Squares and Products (Technometrics, 1962).
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self.mean)

    def add(self, vector: Tensor) -> None:
        """Add a vector; no digits are lost where the mean is far from zero."""
        self.count += 1
        distance = vector - self.mean
        self.mean += distance / self.count
        self._squares += distance * (vector - self.mean)

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, shape ``(size,)``."""
        return self._squares / (self.count - 1)
