"""The base of all priors: a program that draws z."""

from abc import abstractmethod
from collections.abc import Callable

from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.networks import Shape

Proposal = Callable[[Tensor, Tensor | None], TorchDistribution]
r"""A function from data, of shape ``(*batch, *event_shape)``, and their context to :math:`q(z \mid x)`."""


class Prior(PyroModule):
    """A program whose call draws its latent sites and returns what the decoder is given.

    Args:
        latent_dim: length of the vector that it returns.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise InputError(f"latent_dim is {latent_dim}; expected at least 1")
        self.latent_dim = latent_dim

    def meet(self, proposal: Proposal, event_shape: Shape, context_shape: Shape | None) -> None:
        """Adapt to the guide that this prior is paired with, and to the context if there is one; most priors need not."""

    def given(self, context: Tensor | None) -> Tensor:
        """Draw z given a context, of shape ``(*batch, *context_shape)``; most priors are the same for all."""
        return self()

    @abstractmethod
    def forward(self) -> Tensor:
        """Draw z, of shape ``(*batch, latent_dim)``, the batch being that of the plates around."""
