"""Whole runs: all that a call to train takes, from starting weights to trained ones.

The first run of a process, which compiles with an empty cache, stands apart. The bound that each reached on held-out data
is computed for all by the same code, from their networks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.measure import AbsentError, Settings, compare, elapsed, interleaved, ours
from benchmarks.peers import Trained, Trainer, by_hand, pythae_trainer
from benchmarks.peers.by_hand import binarize, bound, weigh
from benchmarks.peers.ours import fitted
from benchmarks.task import Task, mlp_task, pixels

trainers: dict[str, Trainer] = {
    ours: fitted,
    "by hand, compiled, in memory": by_hand.compiled_run,
    "by hand, eager, DataLoader": by_hand.eager_run,
    "pythae": pythae_trainer.trained,
}


def run(settings: Settings) -> None:
    """A VAE, and an importance-weighted one."""
    train, test = pixels(settings)
    if settings.quick:
        measure(settings, mlp_task(100, 1, train[:2000]), test[:1000], epochs=2, rounds=1)
        return
    for particles in (1, 5):
        measure(settings, mlp_task(100, particles, train), test, epochs=3, rounds=2)


def measure(settings: Settings, task: Task, test: Tensor, *, epochs: int, rounds: int) -> None:
    """One table: seconds an epoch, and the bound on held-out data."""
    torch.manual_seed(0)
    x = binarize(test.flatten(1))
    with nullcontext() if settings.quick else _empty_cache():
        first, nats, absent = _first_runs(task, x, epochs)
        runs = {name: lambda epochs, name=name: trainers[name](task, epochs) for name in first}
        times = interleaved(runs, rounds=rounds, steps=epochs)
    notes = {
        "s, first run": {name: f"{seconds:.1f}" for name, seconds in first.items()},
        "s, next runs": {name: f"{epochs * times[name].median:.1f}" for name in first},
        "bound, held out": {name: f"{value:.2f}" for name, value in nats.items()},
    }
    title = f"{epochs} epochs of {len(task.data)} data, {task.name}"
    compare(settings, title, times, unit="an epoch", notes=notes, absent=absent)


def _first_runs(task: Task, x: Tensor, epochs: int) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Seconds and held-out bound of each contender's first run, and why others are absent."""
    first, nats, absent = {}, {}, {}
    for name, train in trainers.items():
        result: list[Trained] = []
        try:
            first[name] = elapsed(lambda train=train, result=result: result.append(train(task, epochs)))
        except AbsentError as reason:
            absent[name] = str(reason)
        else:
            nats[name] = reached(result[0], x, task.particles)
    return first, nats, absent


@torch.no_grad()
def reached(trained: Trained, x: Tensor, particles: int) -> float:
    """The mean bound of data, in nats."""
    bounds = [bound(weigh(*trained.propose(some), trained.decode, some, particles)) for some in x.split(500)]
    return torch.cat(bounds).mean().item()


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Forget meanwhile what torch compiled in earlier processes."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder):
        yield
