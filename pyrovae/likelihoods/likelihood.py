"""The base of all likelihoods: from decoder output to a distribution over x."""

from abc import abstractmethod

from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor

from pyrovae.networks import Shape


class Likelihood(PyroModule):
    """A map from decoder output to a distribution over one datum.

    Args:
        event_shape: shape of one datum.

    Attributes:
        filler: a number that x can be, which stands where nothing was observed.
    """

    filler = 0.0

    def __init__(self, event_shape: Shape) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)

    @property
    def param_shape(self) -> Shape:
        """The shape of decoder output that one datum needs."""
        return self.event_shape

    @abstractmethod
    def forward(self, params: Tensor) -> TorchDistribution:
        """Return the distribution of x, event shape ``event_shape``, given ``params`` ``(*batch, *param_shape)``."""

    def given(self, params: Tensor, context: Tensor | None) -> TorchDistribution:
        """Return the distribution of x given a context ``(*batch, *context_shape)`` too, which most leave unused."""
        return self(params)

    @abstractmethod
    def start(self, mean: Tensor) -> Tensor:
        """Return the decoder output, shape ``param_shape``, at which the mean of x is ``mean``, of shape ``event_shape``."""
