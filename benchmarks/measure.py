"""What all measurements share: blocks of steps timed in turn, ratios of neighbours in time, tables, and the machine.

Machines drift: other processes, clocks and heat move a timing by more than what is to be measured. So contenders are not
timed one after another but in rounds, each round a block of steps of each, and a ratio is the median over rounds of the
quotient of two blocks of the same round.

    times = interleaved({"pyrovae": ours, "by hand": theirs}, seconds=0.1, rounds=20)
    compare(settings, "the step", times)

where ``ours(n)`` does n steps and waits for the device.
"""

import os
import platform
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Measurement, timer
from torch.utils.benchmark.utils.common import TaskSpec

Contender = Callable[[int], Any]
"""Does so many steps and waits for the device."""

ours = "pyrovae"
"""The contender that the others are compared with."""

packages = ("torch", "pyro-ppl", "jax", "numpyro", "pythae")


class AbsentError(Exception):
    """A peer that cannot run here, with the reason: not installed, or no such device."""


@dataclass(frozen=True)
class Settings:
    """What is asked of every measurement.

    Args:
        device: where all contenders run.
        quick: a small setting, to see that all works.
        root: the folder that holds MNIST; random pixels if None.
        markdown: print tables as Markdown.
        keep: a folder for what takes hours, to go on from; nothing is kept if None.
        run: the folder of a trained run that is measured; one is trained if None.
        builds: other checkouts of this library, as contenders.
    """

    device: torch.device
    quick: bool = False
    root: str | None = None
    markdown: bool = False
    keep: str | None = None
    run: str | None = None
    builds: Sequence[str] = ()

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return 2 if self.quick else 25

    @property
    def seconds(self) -> float:
        """The length of one block."""
        return 0.02 if self.quick else 0.2


def interleaved(
    contenders: Mapping[str, Contender], *, rounds: int, seconds: float | None = None, steps: int | None = None
) -> dict[str, Measurement]:
    """Time a block of steps of each contender in every round, in an order of its own.

    Args:
        contenders: by name.
        rounds: how often each is timed.
        seconds: the length of a block, from which its number of steps follows after a few that are not timed; or
        steps: the number itself, of contenders that have run before.

    Returns:
        A measurement for each contender, its ``times`` the seconds of one step, in the order of the rounds.
    """
    blocks = {name: steps or warmed(run, seconds or 0.1) for name, run in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    shuffle = random.Random(0).shuffle
    order = list(contenders)
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            times[name].append(seconds_of(contenders[name], blocks[name]))
    return {name: measurement(name, times[name], blocks[name]) for name in contenders}


def seconds_of(contender: Contender, steps: int) -> float:
    """The seconds of a block of steps, by the contender's own clock where it has one, in another process."""
    clock = getattr(contender, "seconds", None)
    return clock(steps) if clock else elapsed(lambda: contender(steps))


def elapsed(work: Callable[[], Any]) -> float:
    """The seconds that it takes, with all that the device had to do."""
    began = timer()
    work()
    return timer() - began


def warmed(run: Contender, seconds: float, pilot: int = 5) -> int:
    """How many steps take about so long, done once."""
    run(pilot)
    steps = max(1, round(seconds * pilot / seconds_of(run, pilot)))
    run(steps)
    return steps


def measurement(name: str, seconds: list[float], steps: int = 1) -> Measurement:
    """Blocks of so many steps as torch's record of a measurement."""
    task = TaskSpec(name, setup="", description=name, num_threads=torch.get_num_threads())
    return Measurement(steps, seconds, task)


def ratio(one: Measurement, other: Measurement) -> float:
    """The median over rounds of the quotient of the two in the same round."""
    return statistics.median(a / b for a, b in zip(one.times, other.times, strict=True))


def compare(
    settings: Settings,
    title: str,
    times: Mapping[str, Measurement],
    *,
    base: str = ours,
    unit: str = "a step",
    notes: Mapping[str, Mapping[str, str]] | None = None,
    absent: Mapping[str, str] | None = None,
) -> None:
    """Print median, interquartile range and ratio of each contender.

    Args:
        settings: how to print.
        title: what stands above the table.
        times: what :func:`interleaved` returns.
        base: the contender whose time the ratios divide by those of the others.
        unit: what was timed.
        notes: further columns: values by contender, by heading.
        absent: why contenders are missing, by name.
    """
    notes = notes or {}
    rows = [[name, *_cells(times, name, base), *(column.get(name, "") for column in notes.values())] for name in times]
    rows += [[name, reason] for name, reason in (absent or {}).items()]
    table(settings, title, ["", f"ms {unit}", "IQR", f"{base} / it", *notes], rows)


def _cells(times: Mapping[str, Measurement], name: str, base: str) -> list[str]:
    measured = times[name]
    quotient = f"{ratio(times[base], measured):.3f}" if base in times else ""
    return [milliseconds(measured.median), milliseconds(measured.iqr), quotient]


def milliseconds(seconds: float) -> str:
    """Three digits of it."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def table(settings: Settings, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, as Markdown where that is asked for."""
    full = [header, *([*row, *[""] * (len(header) - len(row))] for row in rows)]
    print(f"\n{title}\n")
    lines = _markdown(full) if settings.markdown else _aligned(full)
    print("\n".join(lines), flush=True)


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def machine(settings: Settings) -> str:
    """Processor, threads, how busy others keep it, graphics card where one is used, and versions."""
    places = [f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"]
    if settings.device.type == "cuda":
        places.append(f"{torch.cuda.get_device_name(settings.device)}, CUDA {torch.version.cuda}")
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return f"{'; '.join(places)}; {', '.join(versions)}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version(package: str) -> str:
    """The installed version of a package, or a word for its absence."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
