"""From ``python`` to the first training step: what recording and fusing cost, before they win anything back.

Fresh processes, each a ``pyrovae.fit`` of an MLP 784-200-200-50 with its first two steps: compiled with an empty cache of
compiled code, compiled again with what that left, and eager.
"""

import json
import os
import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import pyrovae
from benchmarks.measure import Settings, elapsed, table
from benchmarks.peers.ours import pair
from benchmarks.task import made_up, mlp_task

batch_size = 128

Times = tuple[float, float]
"""Seconds to the first step, from the end of the checks, and of the whole process."""


def run(settings: Settings) -> None:
    """One table, of medians."""
    rounds = [one_round(settings) for _ in range(1 if settings.quick else 5)]
    rows = [
        [name, *(f"{statistics.median(times):.2f}" for times in zip(*found, strict=True))] for name, found in by_name(rounds)
    ]
    header = ["", "s to the first step", "s, whole process"]
    table(settings, f"startup, {batch_size} data in a step, median of {len(rounds)}", header, rows)


def by_name(rounds: list[dict[str, Times]]) -> list[tuple[str, list[Times]]]:
    """The times of all rounds, for each way to start."""
    return [(name, [times[name] for times in rounds]) for name in rounds[0]]


def one_round(settings: Settings) -> dict[str, Times]:
    """Each of them once."""
    with TemporaryDirectory() as cache:
        eager = {"eager": started(settings, cache, compile=False)}
        if settings.quick:
            return eager
        names = "compiled, empty cache", "compiled, cached"
        return {name: started(settings, cache, compile=True) for name in names} | eager


def started(settings: Settings, cache: str, *, compile: bool) -> Times:
    """A process of its own, with its compiled code in a folder."""
    asked = {"device": settings.device.type, "compile": compile, "threads": torch.get_num_threads()}
    caches = {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": str(Path(cache, "triton"))}
    first: list[float] = []

    def process() -> None:
        command = [sys.executable, "-m", "benchmarks.startup", json.dumps(asked)]
        options = {"env": os.environ | caches, "cwd": Path(__file__).parents[1], "stdout": subprocess.PIPE}
        first.append(float(subprocess.run(command, check=True, text=True, **options).stdout))

    seconds = elapsed(process)
    return first[0], seconds


def first_step(device: str, compile: bool, threads: int) -> float:
    """Seconds to the first step of ``pyrovae.fit`` in this process."""
    torch.set_num_threads(threads)
    data = made_up(2 * batch_size)[0].to(device)
    vae = pair(mlp_task(batch_size, 1, data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        x = data.flatten(1).round()
        history = pyrovae.fit(vae, x, epochs=1, batch_size=batch_size, compile=compile, progress=False)
    return history.seconds_to_first_step


if __name__ == "__main__":
    print(first_step(**json.loads(sys.argv[1])))
