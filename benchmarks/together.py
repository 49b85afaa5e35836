"""Two trainings at once: the time of both over that of one after the other, on the machine they share.

Each has a process of its own and is warm when the clock starts. At once they should take no longer, however many threads
each has; where threads wait for others by spinning, they do.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.measure import Contender, Settings, interleaved, milliseconds, ratio, table, warmed
from benchmarks.peers import Stepper
from benchmarks.peers.build import Build
from benchmarks.step import sizes
from benchmarks.task import Task, mlp_task, pixels

here = Path(__file__).parents[1]


def run(settings: Settings) -> None:
    """One table: every size, this checkout and those that are asked for."""
    data = pixels(settings)[0][:10_000]
    asked = sizes[:1] if settings.quick else sizes
    tasks = [mlp_task(batch_size, particles, data) for batch_size, particles in asked]
    rows = [row(settings, path, task) for task in tasks for path in (here, *settings.builds)]
    header = ["", "ms a step of both, in turn", "IQR", "at once", "IQR", "at once / in turn"]
    table(settings, "two trainings in processes of their own", header, rows)


def row(settings: Settings, path: str | Path, task: Task) -> list[str]:
    """Time two trainings of the library at a path."""
    both = [Build(path, task) for _ in range(2)]
    steps = min(warmed(build, settings.seconds) for build in both)
    times = interleaved(ways(both), rounds=settings.rounds, steps=steps)
    cells = [milliseconds(value) for timed in times.values() for value in (timed.median, timed.iqr)]
    name = f"{path}, {task.name}" if settings.builds else task.name
    return [name, *cells, f"{ratio(times['at once'], times['in turn']):.2f}"]


def ways(steppers: Sequence[Stepper]) -> dict[str, Contender]:
    """The ways to do so many steps of each."""
    return {"in turn": partial(in_turn, steppers), "at once": partial(at_once, steppers)}


def in_turn(steppers: Sequence[Stepper], steps: int) -> list[float]:
    """Do so many steps of each, one after the other."""
    return [stepper(steps) for stepper in steppers]


def at_once(steppers: Sequence[Stepper], steps: int) -> list[float]:
    """Do so many steps of each, and wait for all."""
    with ThreadPoolExecutor(len(steppers)) as pool:
        return list(pool.map(lambda stepper: stepper(steps), steppers))
