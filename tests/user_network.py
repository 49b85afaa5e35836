"""What a user would write beside a configuration."""

import math

import torch
from torch import nn


class Decoder(nn.Module):
    """A user's own network: any module of the right shapes."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], width: int = 7) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.layers = nn.Sequential(nn.Linear(in_shape[0], width), nn.ReLU(), nn.Linear(width, 64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z).unflatten(-1, self.out_shape)


class Normalised(nn.Module):
    """An encoder of four numbers that keeps running statistics of the batches it is trained on."""

    def __init__(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.norm, self.linear, self.out_shape = nn.BatchNorm1d(4), nn.Linear(4, 4), out_shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x)).unflatten(-1, self.out_shape)


class RandomFeatures(nn.Module):
    """An encoder on features that are drawn when it is made, and are kept as a buffer or are not."""

    def __init__(self, in_shape, out_shape, kept: bool = False) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.linear = nn.Linear(8, math.prod(out_shape))
        self.register_buffer("frequencies", torch.randn(math.prod(in_shape), 8), persistent=kept)
        self.dims = len(in_shape)

    def forward(self, x):
        return self.linear((x.flatten(x.dim() - self.dims) @ self.frequencies).sin()).unflatten(-1, self.out_shape)
