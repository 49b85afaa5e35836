"""Programs that are not made of our parts, as a user of Pyro writes them, beside the same mathematics by hand.

Two functions, a hierarchical pair, a guide with a flow of zuko and a VampPrior, on 784 binary pixels at B = 128, K = 1.
Before anything is timed, the loss by hand and its gradient must be those of the pair at the same random numbers, and then
the mean loss of all contenders over their first steps must be the same.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.measure import Settings, compare, interleaved, ours
from benchmarks.programs.contenders import Train, batch_size, by_hand, draw, recorded, stock_pyro
from benchmarks.programs.equivalence import compared
from benchmarks.programs.flow import flow
from benchmarks.programs.functions import functions
from benchmarks.programs.hierarchical import hierarchical
from benchmarks.programs.pair import Pair
from benchmarks.programs.vamp import vamp
from benchmarks.step import agreed
from benchmarks.task import pixels
from pyrovae.compiling.fallback import NotCompiledWarning

programs: tuple[Callable[[], Pair], ...] = (functions, hierarchical, flow, vamp)

contenders: dict[str, Train] = {ours: recorded, "by hand, compiled": by_hand, "Pyro SVI": stock_pyro}


def run(settings: Settings) -> None:
    """Every program, timed if it need not be quick; one that cannot be recorded is an error here."""
    data = pixels(settings)[0].flatten(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotCompiledWarning)
        for program in programs:
            if settings.quick and program is not functions:
                print(f"\n{title(program, data)}, not timed", flush=True)
            else:
                measure(settings, program, data)


def title(program: Callable[[], Pair], data: Tensor) -> str:
    """What the program is, and how far its loss and that by hand are apart."""
    return f"programs, {program.__name__} ({compared(started(program, data.device), draw(data[:batch_size]))})"


def measure(settings: Settings, program: Callable[[], Pair], data: Tensor) -> None:
    """One table, its contenders each on networks of their own, which start alike."""
    heading = title(program, data)
    steppers = {name: train(started(program, data.device), data) for name, train in contenders.items()}
    first = agreed(steppers, 50 if settings.quick else 200)
    times = interleaved(steppers, rounds=settings.rounds, seconds=settings.seconds)
    notes = {"loss, first steps": {name: f"{loss:.1f}" for name, loss in first.items()}}
    compare(settings, heading, times, notes=notes)


def started(program: Callable[[], Pair], device: torch.device) -> Pair:
    """The pair with the starting weights that all contenders have."""
    torch.manual_seed(0)
    pair = program()
    pair.networks.to(device)
    return pair
