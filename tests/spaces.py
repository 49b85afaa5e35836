"""The spaces that latents live in: of each what a test needs of it to be asked of every class."""

import math

import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import normalize

from pyrovae.runtime.parameters import Program


class Line:
    """The numbers, and the space of more dimensions that vectors of them make."""

    dim = 1
    """The least length of a latent; of this length are the points of :meth:`grid`."""

    @staticmethod
    def grid(size: int, reach: float) -> tuple[Tensor, Tensor, Tensor]:
        """Points with their coordinates, and the measure per unit of coordinate: fine at 0, coarse in the tails."""
        u = torch.linspace(-1.0, 1.0, size) * torch.tensor(reach).asinh()
        return u.sinh()[:, None], u, u.cosh()

    @staticmethod
    def coordinate(points: Tensor) -> Tensor:
        return points[..., 0].asinh()

    @staticmethod
    def somewhere(*shape: int) -> Tensor:
        return torch.randn(shape)

    @staticmethod
    def far(size: int, dim: int) -> Tensor:
        """Points at the edges of the space, some of them."""
        return torch.cat([torch.zeros(1, dim), 30 * torch.randn(size, dim)])


class Sphere:
    """The unit vectors; of two numbers they are a circle."""

    dim = 2

    @staticmethod
    def grid(size: int, reach: float) -> tuple[Tensor, Tensor, Tensor]:
        u = torch.linspace(-math.pi, math.pi, size)
        return torch.stack([u.cos(), u.sin()], -1), u, torch.ones_like(u)

    @staticmethod
    def coordinate(points: Tensor) -> Tensor:
        return torch.atan2(points[..., 1], points[..., 0])

    @staticmethod
    def somewhere(*shape: int) -> Tensor:
        return normalize(torch.randn(shape), dim=-1)

    @staticmethod
    def far(size: int, dim: int) -> Tensor:
        axes = torch.cat([torch.eye(dim), -torch.eye(dim)])
        return axes.repeat(-(-size // len(axes)), 1)


def space_of(program: Program, *args: Tensor) -> type[Line] | type[Sphere]:
    """The space of the site ``z`` of a program."""
    return Sphere if latents(program, *args)["z"][1] else Line


def latents(program: Program, *args: Tensor) -> dict[str, tuple[int, bool]]:
    """The latent sites of a program of ours, each with the length of its vector and whether it lies on a sphere."""
    trace = poutine.trace(program).get_trace(*args)
    sites = {name: trace.nodes[name] for name in trace.stochastic_nodes if name.startswith("z")}
    return {
        name: (site["value"].shape[-1], getattr(site["fn"], "support", None) is constraints.sphere)
        for name, site in sites.items()
    }
