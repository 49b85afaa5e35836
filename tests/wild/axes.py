"""Decoders that name an axis of one run: each in a batch whose size is that of every other axis, and in one whose is not.

Pyro runs a program with latents of shape ``(B, L)``; whatever counts axes from the left, or says how many there are, holds
for that shape alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.wild.case import Case, Row, linear
from tests.wild.exact import affine

WIDTH, NOISE = 5, 1.0
SIZES = {"fits": WIDTH, "does not fit": WIDTH - 1}
"""Data in the batch: as many as every axis is long, and one fewer."""


class Decoder(nn.Module):
    """What an operation is made of: two layers, weights of their own, a convolution and a normalisation."""

    def __init__(self, operation: "Operation", size: int) -> None:
        super().__init__()
        self.operation = operation
        self.first, self.last = linear(operation.latent_dim, WIDTH), linear(operation.features, WIDTH)
        self.joined = linear(operation.latent_dim + WIDTH, WIDTH)
        self.weights = nn.Parameter(0.5 * torch.randn(WIDTH, operation.latent_dim))
        self.conv, self.norm = nn.Conv2d(1, 2, 2), nn.BatchNorm1d(WIDTH)
        self.register_buffer("y", torch.randn(size, WIDTH))
        self.norm(torch.randn(30, WIDTH))

    def forward(self, z: Tensor) -> Tensor:
        return 0.4 * self.last(self.operation.compute(self, z))


@dataclass(frozen=True)
class Operation:
    """Something that a decoder does, with its axes counted from the left.

    Attributes:
        name: as it is written.
        compute: from the decoder and z, shape ``(B, latent_dim)``, to shape ``(B, features)``.
        features: how many numbers it gives.
        latent_dim: how many it takes.
        affine: whether it is an affine function of z, so that log p(x) is known.
        training: whether its networks are in training mode.
    """

    name: str
    compute: Callable[[Decoder, Tensor], Tensor]
    features: int = WIDTH
    latent_dim: int = WIDTH
    affine: bool = False
    training: bool = False


def per_datum_matrices(net: Decoder, z: Tensor) -> Tensor:
    """A matrix for each datum, ``(B, K, D)``."""
    return net.y[:, :, None] * net.weights


def row_by_row(net: Decoder, z: Tensor) -> Tensor:
    return torch.stack([net.first(row) - row.mean() for row in z])


OPERATIONS = [
    Operation("softmax(h, dim=1)", lambda net, z: functional.softmax(2 * net.first(z), dim=1)),
    Operation("log_softmax(h, 1)", lambda net, z: functional.log_softmax(net.first(z), 1)),
    Operation("normalize(z)", lambda net, z: functional.normalize(z)),
    Operation("z[:, :1]", lambda net, z: z[:, :1], features=1, affine=True),
    Operation("z[:, 0], z[:, 1]", lambda net, z: torch.stack([z[:, 0], z[:, 1] ** 2], dim=1), features=2),
    Operation("h.mean(1)", lambda net, z: z - z.mean(1)[:, None], affine=True),
    Operation("h.mean(1, keepdim=True)", lambda net, z: z - z.mean(1, keepdim=True), affine=True),
    Operation("h.sum(dim=1)", lambda net, z: net.first(z).sum(dim=1, keepdim=True), features=1, affine=True),
    Operation("z.cumsum(1)", lambda net, z: 0.5 * z.cumsum(1), affine=True),
    Operation("BatchNorm1d, training", lambda net, z: net.norm(net.first(z)), training=True),
    Operation("BatchNorm1d, evaluation", lambda net, z: net.norm(net.first(z)), affine=True),
    Operation("reshape((z.shape[0],) + ...)", lambda net, z: net.first(z).reshape((z.shape[0], WIDTH)), affine=True),
    Operation("view(-1, C, H, W), convolution", lambda net, z: net.conv(z.view(-1, 1, 3, 2)).flatten(1), 4, 6, affine=True),
    Operation("view(z.size(0), -1)", lambda net, z: net.first(z)[..., None].view(z.size(0), -1), affine=True),
    Operation("cat([z, y], 1)", lambda net, z: net.joined(torch.cat([z, net.y], 1)), affine=True),
    Operation("cat([z, y], -1)", lambda net, z: net.joined(torch.cat([z, net.y], -1)), affine=True),
    Operation("z.transpose(0, 1)", lambda net, z: (net.weights @ z.transpose(0, 1)).transpose(0, 1), affine=True),
    Operation("z.t()", lambda net, z: (net.weights @ z.t()).t(), affine=True),
    Operation("bmm", lambda net, z: torch.bmm(per_datum_matrices(net, z), z.unsqueeze(2)).squeeze(2), affine=True),
    Operation('einsum("bd,bkd->bk")', lambda net, z: torch.einsum("bd,bkd->bk", z, per_datum_matrices(net, z)), affine=True),
    Operation("z.unsqueeze(1) * W", lambda net, z: (z.unsqueeze(1) * net.weights).sum(2), affine=True),
    Operation("for row in z", row_by_row, affine=True),
    Operation("h.max(1).values", lambda net, z: net.first(z).max(1).values[:, None], features=1),
    Operation("sort(dim=1)", lambda net, z: net.first(z).sort(dim=1).values),
    Operation("stack([...], dim=1)", lambda net, z: torch.stack([z, 0.5 * z.flip(1)], dim=1).flatten(1), 10, affine=True),
    Operation("z.permute(1, 0)", lambda net, z: (0.5 * z.permute(1, 0).flip(0)).permute(1, 0), affine=True),
    Operation("B, L = z.shape", lambda net, z: net.first(z) + torch.zeros(*unpacked(z)), affine=True),
]


def unpacked(z: Tensor) -> tuple[int, int]:
    size, latent_dim = z.shape
    return size, latent_dim


class Pair(nn.Module):
    """A normal prior and likelihood around the decoder, and an encoder that is near the prior."""

    def __init__(self, operation: Operation, size: int) -> None:
        super().__init__()
        self.latent_dim = operation.latent_dim
        self.decoder, self.encoder = Decoder(operation, size), linear(WIDTH, operation.latent_dim)

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], self.latent_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(0.1 * self.encoder(x), 0.9).to_event(1))


def case(operation: Operation, size: int) -> Case:
    pair = Pair(operation, size)
    pair.train(operation.training)
    with torch.no_grad():
        x = pair.decoder(torch.randn(size, operation.latent_dim)) + NOISE * torch.randn(size, WIDTH)
    made = Case(pair.model, pair.guide, (x,), size, modules=(pair,))
    return made.with_exact(lambda: affine(made, pair.decoder, operation.latent_dim, NOISE)) if operation.affine else made


ROWS = [
    Row(f"{operation.name}, B {fits}", partial(case, operation, size), num_samples=600)
    for operation in OPERATIONS
    for fits, size in SIZES.items()
]
