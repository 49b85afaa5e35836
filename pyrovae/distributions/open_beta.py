"""The beta distribution on the open interval."""

from typing import Any

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints


class OpenInterval(constraints.interval):
    """The open interval between two numbers, as a constraint."""

    def check(self, value: Tensor) -> Tensor:
        return (self.lower_bound < value) & (value < self.upper_bound)

    def __repr__(self) -> str:
        return f"numbers above {self.lower_bound:g} and below {self.upper_bound:g}"


class OpenBeta(dist.Beta):
    """The beta distribution without 0 and 1 in its support, where its density is not finite in general."""

    support: Any = OpenInterval(0.0, 1.0)
