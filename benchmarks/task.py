"""What all contenders do: pixels, starting weights, and the order in which batches are taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Settings
from benchmarks.networks import conv, copied, mlp
from pyrovae.data import MNIST

latent_dim = 50


@dataclass(frozen=True, eq=False)
class Task:
    """A model to train, the same for every contender.

    Args:
        name: what it is called.
        batch_size: the number B of data in a step.
        particles: the number K of draws a datum.
        data: pixels in [0, 1], shape ``(N, *event_shape)``, on the device of the contenders.
        encoder: its starting weights; maps ``(B, *event_shape)`` to ``(B, 2 * latent_dim)``, means before raw scales.
        decoder: the same for ``(B, latent_dim)`` to logits ``(B, *event_shape)``.
        convolutional: whether the networks are convolutional.
        learning_rate: of Adam.
    """

    name: str
    batch_size: int
    particles: int
    data: Tensor
    encoder: nn.Module
    decoder: nn.Module
    convolutional: bool = False
    learning_rate: float = 1e-3

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """An encoder and a decoder of one's own, with the starting weights."""
        return copied(self.encoder), copied(self.decoder)

    def order(self, seed: int = 0) -> "Order":
        """The order of the data, the same at each call."""
        return Order(len(self.data), self.data.device, seed)


class Order:
    """Rows of the data in random order, each once before any comes again."""

    def __init__(self, size: int, device: torch.device, seed: int) -> None:
        self._size = size
        self._generator = torch.Generator(device).manual_seed(seed)
        self._left = torch.empty(0, dtype=torch.int64, device=device)

    def take(self, number: int) -> Tensor:
        """The next rows, shape ``(number,)``."""
        while len(self._left) < number:
            more = torch.randperm(self._size, generator=self._generator, device=self._generator.device)
            self._left = torch.cat([self._left, more])
        taken, self._left = self._left[:number], self._left[number:]
        return taken


def mlp_task(batch_size: int, particles: int, data: Tensor) -> Task:
    """784-200-200-50 and its mirror image, tanh, as in Burda et al. (2016)."""
    torch.manual_seed(0)
    encoder, decoder = mlp(784, 200, 200, 2 * latent_dim), mlp(latent_dim, 200, 200, 784)
    name = f"MLP, B = {batch_size}, K = {particles}"
    return Task(name, batch_size, particles, data.flatten(1), encoder.to(data.device), decoder.to(data.device))


def conv_task(batch_size: int, particles: int, data: Tensor) -> Task:
    """Two convolutions down and two up, the library's defaults for pictures."""
    torch.manual_seed(0)
    encoder, decoder = (network.to(data.device) for network in conv(latent_dim))
    name = f"convolutions, B = {batch_size}, K = {particles}"
    return Task(name, batch_size, particles, data, encoder, decoder, convolutional=True)


def pixels(settings: Settings) -> tuple[Tensor, Tensor]:
    """Grey images to train on and to test on, shape ``(N, 28, 28)`` in [0, 1]: MNIST if there is a root."""
    train, test = _mnist(settings.root) if settings.root else made_up(55_000, 10_000)
    return train.to(settings.device), test.to(settings.device)


def _mnist(root: str | Path) -> tuple[Tensor, Tensor]:
    data = MNIST(str(root), download=False, binarize="dynamic")
    return data.train.x, data.test.x


def made_up(*numbers: int) -> Sequence[Tensor]:
    """Images with as much structure as random ones can have: mixtures of ten random patterns, mostly dark."""
    generator = torch.Generator().manual_seed(0)
    patterns = 3 * torch.randn(10, 784, generator=generator)
    mixed = torch.randn(sum(numbers), 10, generator=generator).softmax(1) @ patterns
    return (5 * mixed - 3).sigmoid().unflatten(1, (28, 28)).split(numbers)
