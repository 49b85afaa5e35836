"""A fully connected network between any two shapes."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyrovae.networks.network import Activation, Network, Shape, activations


class MLP(Network):
    r"""The multilayer perceptron: linear layers with an activation between them.

    Maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)`` for any number of batch dimensions.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        hidden: the widths of the hidden layers.
        activation: the function between layers.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, hidden: Sequence[int] = (200, 200), activation: Activation = "tanh"
    ) -> None:
        super().__init__(in_shape, out_shape)
        widths = [math.prod(in_shape), *hidden]
        pairs = list(pairwise(widths))
        layers = [layer for pair in pairs for layer in (nn.Linear(*pair), activations[activation]())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(out_shape)))

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch_shape(x)
        return self.layers(x.reshape(*batch, -1)).reshape(*batch, *self.out_shape)

    @torch.no_grad()
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias so that the network starts near ``value``, of shape ``out_shape``."""
        self.layers[-1].bias.copy_(value.flatten())  # pyright: ignore
