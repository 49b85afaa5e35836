"""A small convolutional encoder and its mirror image, for pictures of any size."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.networks.network import Activation, Network, Shape, activations

Upsampling = Literal["resize", "transposed"]


class ConvEncoder(Network):
    """The convolutional encoder: strided convolutions, each halving the picture, and one linear layer.

    Maps ``(*batch, [channels,] height, width)`` to ``(*batch, *out_shape)``.

    Args:
        in_shape: ``(height, width)`` or ``(channels, height, width)``.
        out_shape: shape of one output.
        channels: the number of channels after each convolution.
        activation: the function after each convolution.

    Raises:
        InputError: where ``in_shape`` is not that of a picture.
    """

    def __init__(
        self, in_shape: Shape, out_shape: Shape, channels: Sequence[int] = (32, 64), activation: Activation = "silu"
    ) -> None:
        super().__init__(in_shape, out_shape)
        self.picture = picture_shape(in_shape)
        widths = [self.picture[0], *channels]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), activations[activation]()]
        self.convolutions = nn.Sequential(*layers)
        height, width = halved(self.picture[1:], len(channels))[-1]
        self.linear = nn.Linear(widths[-1] * height * width, math.prod(out_shape))

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch_shape(x)
        features = self.convolutions(x.reshape(-1, *self.picture))
        return self.linear(features.flatten(1)).reshape(*batch, *self.out_shape)

    @torch.no_grad()
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias so that the network starts near ``value``, of shape ``out_shape``."""
        self.linear.bias.copy_(value.flatten())


class ConvDecoder(Network):
    """The convolutional decoder: one linear layer and convolutions, each doubling the picture, without checkerboards.

    Maps ``(*batch, *in_shape)`` to ``(*batch, *out_shape)``; leading dimensions of ``out_shape`` become channels. Either way
    up, every pixel is made of as many numbers as its neighbours.

    Args:
        in_shape: shape of one input.
        out_shape: ``(..., height, width)``.
        channels: the number of channels before each convolution.
        activation: the function before each convolution.
        upsampling: ``resize``: repeat each pixel, and convolve by 3 x 3; ``transposed``: a transposed convolution by 4 x 4
            with stride 2, in fewer operations.

    Raises:
        InputError: where ``out_shape`` is not that of a picture, and for another word than these two.

    References:
        | Deconvolution and Checkerboard Artifacts (Odena, Dumoulin & Olah, 2016)
        | https://doi.org/10.23915/distill.00003
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        channels: Sequence[int] = (64, 32),
        activation: Activation = "silu",
        upsampling: Upsampling = "resize",
    ) -> None:
        super().__init__(in_shape, out_shape)
        if upsampling not in _doubling:
            raise InputError(f"upsampling is {upsampling!r}; expected 'resize' or 'transposed'")
        picture = picture_shape(out_shape)
        sizes = halved(picture[1:], len(channels))
        self.first = (channels[0], *sizes[-1])
        self.linear = nn.Linear(math.prod(in_shape), math.prod(self.first))
        widths = [*channels, picture[0]]
        layers: list[nn.Module] = []
        for before, after, size in zip(widths[:-1], widths[1:], sizes[-2::-1], strict=True):
            layers += [activations[activation](), *_doubling[upsampling](before, after, size)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        batch = self.batch_shape(x)
        features = self.linear(x.reshape(-1, math.prod(self.in_shape))).reshape(-1, *self.first)
        return self.convolutions(features).reshape(*batch, *self.out_shape)

    @torch.no_grad()
    def start_output_at(self, value: Tensor) -> None:
        """Set the output layer's bias, one number a channel, to the mean of ``value`` over each channel's picture."""
        bias: Tensor = self.convolutions[-1].bias  # pyright: ignore
        bias.copy_(value.reshape(len(bias), -1).mean(1))


class _Transposed(nn.ConvTranspose2d):
    """A transposed convolution to twice the size, without the row and column that an odd size has too many."""

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        super().__init__(before, after, 4, stride=2, padding=1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x)[..., : self.size[0], : self.size[1]]


def _resized(before: int, after: int, size: tuple[int, int]) -> list[nn.Module]:
    return [nn.Upsample(size), nn.Conv2d(before, after, 3, padding=1)]


def _transposed(before: int, after: int, size: tuple[int, int]) -> list[nn.Module]:
    return [_Transposed(before, after, size)]


_doubling = {"resize": _resized, "transposed": _transposed}


def picture_shape(shape: Shape) -> tuple[int, int, int]:
    """Read ``(channels, height, width)`` from a shape whose last two numbers are the picture's."""
    if len(shape) < 2:
        raise InputError(
            f"the shape {tuple(shape)} is not that of a picture; convolutions need (height, width) or (channels, height, "
            "width): use MLP for other data"
        )
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def halved(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """Compute the sizes before and after each of ``times`` convolutions with stride 2."""
    sizes = [size]
    for _ in range(times):
        height, width = sizes[-1]
        sizes.append((math.ceil(height / 2), math.ceil(width / 2)))
    return sizes
