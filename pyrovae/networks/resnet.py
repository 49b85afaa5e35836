"""Residual networks for pictures of any size: an encoder and its mirror image."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyrovae.networks.conv import halved, picture_shape
from pyrovae.networks.network import Activation, Network, Shape, activations


class ResNetEncoder(Network):
    """The residual encoder: residual blocks, the picture halved before each further width, and one linear layer.

    Maps ``(*batch, [channels,] height, width)`` to ``(*batch, *out_shape)``. Normalisation is by groups of channels within a
    datum, never over the batch: what a datum's weights are does not depend on its company.

    Args:
        in_shape: ``(height, width)`` or ``(channels, height, width)``.
        out_shape: shape of one output.
        channels: the widths, from the picture's full size down.
        blocks: residual blocks of each width.
        activation: the function before each convolution.

    Raises:
        InputError: where ``in_shape`` is not that of a picture.

    References:
        | Identity Mappings in Deep Residual Networks (He, Zhang, Ren & Sun, 2016), figure 4 (e)
        | https://arxiv.org/abs/1603.05027
        | Group Normalization (Wu & He, 2018)
        | https://arxiv.org/abs/1803.08494
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 2,
        activation: Activation = "silu",
    ) -> None:
        super().__init__(in_shape, out_shape)
        self.picture = picture_shape(in_shape)
        layers: list[nn.Module] = [nn.Conv2d(self.picture[0], channels[0], 3, padding=1)]
        layers += [_Residual(channels[0], activation) for _ in range(blocks)]
        for before, after in pairwise(channels):
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            layers += [_Residual(after, activation) for _ in range(blocks)]
        self.convolutions = nn.Sequential(*layers, *_normalised(channels[-1], activation))
        height, width = halved(self.picture[1:], len(channels) - 1)[-1]
        self.linear = nn.Linear(channels[-1] * height * width, math.prod(out_shape))

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch_shape(x)
        features = self.convolutions(x.reshape(-1, *self.picture))
        return self.linear(features.flatten(1)).reshape(*batch, *self.out_shape)

    @torch.no_grad()
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias so that the network starts near ``value``, of shape ``out_shape``."""
        self.linear.bias.copy_(value.flatten())


class ResNetDecoder(Network):
    """The residual decoder: one linear layer and residual blocks, the picture doubled after each width but the last.

    Maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``; leading dimensions of ``out_shape`` become channels.

    Args:
        in_shape: shape of one input.
        out_shape: ``(..., height, width)``.
        channels: the widths, from the smallest size up to the picture's.
        blocks: residual blocks of each width.
        activation: the function before each convolution.

    Raises:
        InputError: where ``out_shape`` is not that of a picture.

    References:
        | Identity Mappings in Deep Residual Networks (He, Zhang, Ren & Sun, 2016), figure 4 (e)
        | https://arxiv.org/abs/1603.05027
        | Deconvolution and Checkerboard Artifacts (Odena, Dumoulin & Olah, 2016)
        | https://doi.org/10.23915/distill.00003
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (128, 64, 32),
        blocks: int = 2,
        activation: Activation = "silu",
    ) -> None:
        super().__init__(in_shape, out_shape)
        picture = picture_shape(out_shape)
        sizes = halved(picture[1:], len(channels) - 1)
        self.first = (channels[0], *sizes[-1])
        self.linear = nn.Linear(math.prod(in_shape), math.prod(self.first))
        layers: list[nn.Module] = [_Residual(channels[0], activation) for _ in range(blocks)]
        for (before, after), size in zip(pairwise(channels), sizes[-2::-1], strict=True):
            layers += [nn.Upsample(size), nn.Conv2d(before, after, 3, padding=1)]
            layers += [_Residual(after, activation) for _ in range(blocks)]
        last = nn.Conv2d(channels[-1], picture[0], 3, padding=1)
        self.convolutions = nn.Sequential(*layers, *_normalised(channels[-1], activation), last)

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch_shape(x)
        features = self.linear(x.reshape(-1, math.prod(self.in_shape))).reshape(-1, *self.first)
        return self.convolutions(features).reshape(*batch, *self.out_shape)

    @torch.no_grad()
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias, one number a channel, to the mean of ``value`` over each channel's picture."""
        bias: Tensor = self.convolutions[-1].bias  # pyright: ignore
        bias.copy_(value.reshape(len(bias), -1).mean(1))


class _Residual(nn.Module):
    """A residual block: the input plus two convolutions of it, each after normalisation and activation."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        layers = [[*_normalised(width, activation), nn.Conv2d(width, width, 3, padding=1)] for _ in range(2)]
        self.branch = nn.Sequential(*layers[0], *layers[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def _normalised(width: int, activation: Activation) -> list[nn.Module]:
    """Make a group normalisation, by groups of four channels or more, and an activation."""
    return [nn.GroupNorm(math.gcd(8, max(1, width // 4)), width), activations[activation]()]
