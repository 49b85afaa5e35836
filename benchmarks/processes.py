"""Processes: the throughput of one training step in one process and in several, each on one core.

784-200-200-50 and back with tanh, Bernoulli, batches of 1,000 of all processes together; gloo on CPUs. The rounds of one
and of several processes are in turn, each on one core.
"""

import os
import statistics
import subprocess
import sys
from itertools import pairwise
from typing import Any

import torch
from torch import distributed

import pyrovae
from benchmarks.measure import Settings, table

batch_size, latent_dim = 1000, 50


def run(settings: Settings) -> None:
    """One table."""
    steps, rounds = (3, 1) if settings.quick else (40, 5)
    numbers = (1, 2)
    times: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(rounds):
        for number in numbers:
            times[number].append(measured(number, steps))
    alone = statistics.median(times[1])
    rows = [
        [
            f"{number} process{'es' * (number > 1)}",
            f"{batch_size / statistics.median(found):,.0f}",
            f"{alone / statistics.median(found):.2f}",
        ]
        for number, found in times.items()
    ]
    table(
        settings,
        f"training, batches of {batch_size:,}, {rounds} rounds of {steps} steps",
        ["", "data a second", "ratio"],
        rows,
    )


def measured(processes: int, steps: int) -> float:
    """The median time of a step, in seconds."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "benchmarks.processes", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def train(steps: int) -> float:
    """The median time of steps after the first five."""
    from time import perf_counter

    from pyrovae.training.progress import Progress

    times: list[float] = []
    over: Any = Progress.advance

    def timed(self: Progress, batches: int) -> None:
        over(self, batches)
        times.append(perf_counter())

    Progress.advance = timed
    torch.manual_seed(0)
    pair, x = pyrovae.VAE((784,), latent_dim=latent_dim), torch.bernoulli(torch.full(((steps + 6) * batch_size, 784), 0.2))
    pyrovae.fit(pair, x, epochs=1, batch_size=batch_size, compile=False, progress=False)
    return statistics.median(later - earlier for earlier, later in pairwise(times[5:]))


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    median = train(int(sys.argv[1]))
    if distributed.get_rank() == 0:
        print(median)
    distributed.destroy_process_group()
