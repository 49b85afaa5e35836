"""The base of all guides: a program that draws z given x, the proposal of an importance sampler."""

from abc import abstractmethod

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyrovae.distributions.observed_part import require_mask
from pyrovae.networks import Build, Shape
from pyrovae.networks.conditional_network import output, require_rows


class Guide(PyroModule):
    """A program that draws, within the plate ``data``, the latent sites of the prior it goes with.

    Args:
        event_shape: shape of one datum.
        latent_dim: length of z.
        encoder: builds the network from its input and output shapes.
    """

    def __init__(self, event_shape: Shape, latent_dim: int, encoder: Build) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.latent_dim = latent_dim
        self.encoder = encoder(self.event_shape, self.param_shape)

    def meet(self, prior: nn.Module) -> None:
        """Adapt to the prior that this guide is paired with; most guides need not.

        Raises:
            InputError: where it does not go with that prior.
        """

    @property
    @abstractmethod
    def param_shape(self) -> Shape:
        """The shape of encoder output that one datum needs."""

    @abstractmethod
    def proposal(self, params: Tensor) -> TorchDistribution:
        """Return the distribution q(z | x) of the site ``z``, given the encoder's output ``(*batch, *param_shape)``."""

    def encode(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Run the encoder on data, which it sees as 0 outside the mask."""
        if mask is not None:
            require_mask(mask, x)
            x = torch.where(mask, x, 0.0)
        return output(self.encoder, x, context)

    def propose(self, x: Tensor, context: Tensor | None = None) -> TorchDistribution:
        """Return the distribution q(z | x) of data of shape ``(*batch, *event_shape)``, given their context."""
        return self.proposal(self.encode(x, context))

    def draw(self, params: Tensor) -> Tensor:
        """Draw z given the encoder's output, of shape ``(B, *param_shape)``; a guide of more sites has its own."""
        return pyro.sample("z", self.proposal(params))

    def forward(self, x: Tensor, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Draw z for each datum of ``x``, of shape ``(B, *event_shape)``.

        Args:
            x: the data.
            c: what they are conditioned on, the context, shape ``(B, *context_shape)``.
            mask: the numbers that were observed, bool, of the shape of ``x``; all if not given.
        """
        require_rows(c, len(x))
        with pyro.plate("data", len(x), dim=-1):
            return self.draw(self.encode(x, c, mask))
