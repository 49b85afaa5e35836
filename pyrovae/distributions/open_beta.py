"""The beta distribution on the open interval."""

from typing import Any

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints


class OpenInterval(constraints.interval):
    """The numbers between two others, without these."""

    def check(self, value: Tensor) -> Tensor:
        return (self.lower_bound < value) & (value < self.upper_bound)

    def __repr__(self) -> str:
        return f"numbers above {self.lower_bound:g} and below {self.upper_bound:g}"


class OpenBeta(dist.Beta):
    """The beta distribution, which has no finite density at 0 and 1 in general, without these in its support."""

    support: Any = OpenInterval(0.0, 1.0)
