"""The ways to train a pair: this library's, the same mathematics by hand, and stock Pyro's."""

from collections.abc import Callable

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

import pyrovae
from benchmarks.peers import Stepper
from benchmarks.peers.by_hand import binarize
from benchmarks.programs.pair import Pair
from benchmarks.task import Order
from pyrovae.data import Binarize
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Columns
from pyrovae.training.steps import Steps

batch_size, learning_rate = 128, 1e-3
draw = Binarize.parse("dynamic").draw

Train = Callable[[Pair, Tensor], Stepper]
"""Makes of a pair and grey pixels, shape ``(N, 784)``, a function that does so many training steps."""


def recorded(pair: Pair, data: Tensor) -> Stepper:
    """What ``pyrovae.fit`` runs for data in memory."""
    return steps_of(pyrovae.ELBO()(pair.model, pair.guide), data)


def steps_of(module: ObjectiveModule, data: Tensor) -> Stepper:
    """The recorded steps of an objective on a pair."""
    module.ready(draw(data[:batch_size]))
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
    steps = Steps(module, optimizer, batch_size=batch_size, draw=draw, clip_norm=None, compile=True)
    order = Order(len(data), data.device, seed=0)

    def run(number: int) -> float:
        return -steps.walk(Columns(data), order.take(number * batch_size)).read("train")["train_bound"]

    return run


def by_hand(pair: Pair, data: Tensor) -> Stepper:
    """The loss in plain PyTorch, with the choice of rows and the binarisation, under ``torch.compile``."""
    optimizer = torch.optim.Adam(pair.networks.parameters(), lr=learning_rate, fused=True)
    order = Order(len(data), data.device, seed=0)

    @torch.compile
    def loss(rows: Tensor) -> Tensor:
        return pair.by_hand(binarize(data[rows])) / len(rows)

    def run(number: int) -> float:
        total = torch.zeros((), device=data.device)
        for rows in order.take(number * batch_size).split(batch_size):
            value = loss(rows)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += value.detach()
        return total.item() / number

    return run


def stock_pyro(pair: Pair, data: Tensor) -> Stepper:
    """``SVI.step``, without Pyro's validation; its parameters fill Pyro's global store, which is emptied first."""
    pyro.clear_param_store()
    elbo = Trace_ELBO(max_plate_nesting=1)
    inference = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": learning_rate}), elbo)
    order = Order(len(data), data.device, seed=0)

    def run(number: int) -> float:
        with pyro.validation_enabled(False):
            rows = order.take(number * batch_size).split(batch_size)
            return sum(inference.step(binarize(data[some])) for some in rows) / (number * batch_size)

    return run
