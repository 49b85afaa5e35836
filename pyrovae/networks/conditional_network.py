"""A network that is given a context beside its input."""

import math

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.networks.network import Build, Network, Shape


class ConditionalNetwork(Network):
    """A network of an input and a context, made of one of an input alone.

    Maps ``(*batch, *in_shape)`` and a context that broadcasts against ``(*batch, *context_shape)`` to
    ``(*batch, *out_shape)``. A vector is joined by the context, flattened. A picture, ``(height, width)`` or
    ``(channels, height, width)``, is joined by further channels: the context itself, where it is a picture of that size,
    and else one that a linear layer draws of it.

    Args:
        build: builds the network from its input and output shapes.
        context_shape: shape of one context.
        in_shape: shape of one input.
        out_shape: shape of one output.
    """

    def __init__(self, build: Build, context_shape: Shape, in_shape: Shape, out_shape: Shape) -> None:
        super().__init__(in_shape, out_shape)
        self.context_shape = tuple(context_shape)
        size = self.in_shape[-2:]
        self.drawn: nn.Linear | None = None
        if len(self.in_shape) == 1:
            joined = (self.in_shape[0] + math.prod(self.context_shape),)
        elif self.context_shape[-2:] == size:
            joined = (math.prod(self.in_shape[:-2]) + math.prod(self.context_shape[:-2]), *size)
        else:
            self.drawn = nn.Linear(math.prod(self.context_shape), math.prod(size))
            joined = (math.prod(self.in_shape[:-2]) + 1, *size)
        self.joined_shape = joined
        self.network = build(joined, self.out_shape)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch = self.batch_shape(x)
        context = context.to(x.dtype)
        if context.shape[context.dim() - len(self.context_shape) :] != self.context_shape:
            raise InputError(
                f"context has shape {tuple(context.shape)}; expected (B, {', '.join(map(str, self.context_shape))}): build "
                f"the VAE with context_shape={tuple(context.shape[1:])}, or reshape the context"
            )
        features = context.flatten(context.dim() - len(self.context_shape))
        if self.drawn is not None:
            features = self.drawn(features)
        inner = self.joined_shape[1:]
        features = features.unflatten(-1, (-1, *inner)) if inner else features
        features = features.expand(*batch, *features.shape[features.dim() - len(self.joined_shape) :])
        return self.network(torch.cat([x.reshape(*batch, -1, *inner), features], -len(self.joined_shape)))

    @torch.no_grad()
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias so that the network starts near ``value``, of shape ``out_shape``."""
        self.network.start_output_at(value)  # pyright: ignore


def require_rows(context: Tensor | None, size: int) -> None:
    """Raise an InputError where there is not one context a datum."""
    if context is not None and len(context) != size:
        raise InputError(f"c has {len(context)} rows and there are {size} data; expected one context per datum")


def output(network: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """Run a network on an input, and on a context where it was built for one.

    Raises:
        InputError: for a context that is missing, and for one that nothing was built for.
    """
    if not isinstance(network, ConditionalNetwork):
        if context is not None:
            raise InputError(
                f"a context of shape {tuple(context.shape)} was given, and the networks were built for none; build "
                f"VAE(..., context_shape={tuple(context.shape[1:])}), or leave it out"
            )
        return network(x)
    if context is None:
        raise InputError(
            f"the networks were built for a context of shape {network.context_shape}, and none was given; pass "
            'c=..., or data {"x": x, "c": c}'
        )
    return network(x, context)
