"""Whether the loss by hand is the loss of the pair: eagerly, at the same random numbers, values and gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

import pyrovae
from benchmarks.programs.pair import Pair


def compared(pair: Pair, x: Tensor, tolerance: float = 1e-4) -> str:
    """Both losses on a batch, in nats a datum, and the largest relative difference of a gradient, in words.

    Raises:
        ValueError: where they differ, so that their times are of different computations.
    """
    module = pyrovae.ELBO()(pair.model, pair.guide)
    module.start(x)
    parameters = list(pair.networks.parameters())
    if set(module.parameters()) != set(parameters):
        raise ValueError("the pair and the loss by hand do not have the same parameters")
    theirs, gradients = evaluated(module, x, parameters)
    mine, by_hand = evaluated(pair.by_hand, x, parameters)
    apart = max(map(difference, gradients, by_hand))
    words = f"loss of the pair {theirs.item() / len(x):.4f}, by hand {mine.item() / len(x):.4f}, gradients {apart:.0e} apart"
    if not (difference(theirs, mine) <= tolerance and apart <= tolerance):
        raise ValueError(f"{words}; the programs do not compute the same")
    return words


def evaluated(loss: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss at one seed, and its gradient."""
    torch.manual_seed(1)
    value = loss(x)
    return value, torch.autograd.grad(value, parameters)


def difference(one: Tensor, other: Tensor) -> float:
    """The norm of the difference over that of the second."""
    return ((one - other).norm() / other.norm()).item()
