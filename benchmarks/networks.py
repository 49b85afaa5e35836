"""The networks in plain PyTorch, layer by layer those of ``pyrovae.networks``."""

import copy
import itertools
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for layer in layers[:-1] for part in (layer, nn.Tanh())], layers[-1])


def conv(latent_dim: int) -> tuple[nn.Sequential, nn.Sequential]:
    """An encoder of pictures 28 x 28, and a decoder."""
    encoder = nn.Sequential(
        nn.Unflatten(-2, (1, 28)),
        nn.Conv2d(1, 32, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 2 * latent_dim),
    )
    decoder = nn.Sequential(
        nn.Linear(latent_dim, 64 * 7 * 7),
        nn.Unflatten(1, (64, 7, 7)),
        nn.SiLU(),
        nn.Upsample((14, 14)),
        nn.Conv2d(64, 32, 3, padding=1),
        nn.SiLU(),
        nn.Upsample((28, 28)),
        nn.Conv2d(32, 1, 3, padding=1),
        nn.Flatten(1, 2),
    )
    return encoder, decoder


def copied(network: Module) -> Module:
    """A network of one's own with the same weights."""
    return copy.deepcopy(network)


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The weights of one network into another of the same layers in the same order."""
    for value, place in zip(source.parameters(), target.parameters(), strict=True):
        place.copy_(value)
