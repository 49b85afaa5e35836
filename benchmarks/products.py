"""Importance sampling beside its matrix products: time, and memory at the peak, of log p(x) from many draws.

784-200-200-50 and back with tanh, Bernoulli. The products are the decoder's for as many rows, draws times data, written over
one another, and of the pieces that are tried those in which they are fastest; ``pyrovae`` is all that
``pyrovae.log_likelihood`` does, with errors, bounds and Pareto k-hats, recorded once before. The peak is beyond what the
process held before it recorded the programs; on a CPU the compiler's memory is in it.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.likelihood import (
    Work,
    drawn,
    held_out,
    multiplications,
    per_unit,
    products,
    repeated,
    trained,
    unit_rows,
    whole,
)
from benchmarks.measure import Contender, Settings, compare, interleaved, ours
from benchmarks.peers.ours import pair
from benchmarks.scaling import status
from benchmarks.task import Task, mlp_task, pixels

pieces = 500, 1000, 2000, 4000
"""Rows of one product, of which the fastest number is taken."""
together = 10
"""Data in such a piece, of which each has a tenth of the rows."""


def run(settings: Settings) -> None:
    """A table for each number of draws, of as many rows."""
    train, test = pixels(settings)
    task = trained(mlp_task(100, 5, train), 100 if settings.quick else 2000)
    for samples, number in sizes(settings):
        measured(settings, task, held_out(test, number), samples)


def sizes(settings: Settings) -> tuple[tuple[int, int], ...]:
    """Draws a datum, and data."""
    return ((400, 50), (2000, 10)) if settings.quick else ((5000, 1000), (50_000, 100))


def measured(settings: Settings, task: Task, x: Tensor, samples: int) -> None:
    """One table."""
    rows = samples * len(x)
    at_once, multiply = fastest(task, x, rows)
    peak = beginning(settings.device)
    vae = pair(task)
    estimate = whole(vae, drawn(vae, x, samples, compile=not settings.quick))
    estimate()
    floor = f"{products}, {at_once} rows at once"
    times = interleaved({ours: repeated(estimate), floor: multiply}, rounds=3 if settings.quick else 9, steps=1)
    title = f"log p(x) of {len(x)} data from {samples} draws each, {task.name.partition(',')[0]}"
    notes = {"MiB at the peak": {ours: peak()}}
    compare(settings, title, per_unit(times, rows), unit=f"per {unit_rows:,} rows", notes=notes)


def fastest(task: Task, x: Tensor, rows: int) -> tuple[int, Contender]:
    """The size of piece in which a few products take the least time, and all products in such pieces."""

    def multiply(rows: int, piece: int) -> Contender:
        return multiplications(Work(task, x[:together], rows // together, piece // together))

    few = {str(piece): multiply(5 * max(pieces), piece) for piece in pieces}
    times = interleaved(few, rounds=10, steps=1)
    best = min(pieces, key=lambda piece: times[str(piece)].median)
    return best, multiply(rows, best)


def beginning(device: torch.device) -> Callable[[], str]:
    """What says, later, by how many mebibytes the peak since now is above what is held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held, most = torch.cuda.memory_allocated(device), partial(torch.cuda.max_memory_allocated, device)
    elif (references := Path("/proc/self/clear_refs")).exists():
        references.write_text("5")  # sets the peak to what is resident now
        held, most = status("VmRSS"), partial(status, "VmHWM")
    else:
        return lambda: "not available on this system"
    return lambda: f"{(most() - held) / 2**20:.0f}"
