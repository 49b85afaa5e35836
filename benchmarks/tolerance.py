"""log p(x) to a stated accuracy: what a tolerance costs beside 5,000 draws of the guide, and beside annealing alone.

For each pair two tables. The first has today's guide and two tolerances for all its data: the time, also as a multiple of
the guide's in the same round and of its processor time, which knows less of what else runs; the share that met the
tolerance, evaluations a datum (a gradient counts as three), the share with a k-hat above 0.7 among those that importance
sampling answered, and by which proposals. The second has annealing alone, from the guide and from the prior, at the first
power of two of temperatures at which its median standard error is that of the tolerance, on a few of the data, as a
multiple of what the tolerance takes on these, one right after the other. The last table has the mean for the pair on MNIST
beside annealing from the prior at 10,000 temperatures.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

import pyrovae
from benchmarks.measure import Settings, elapsed, interleaved, ratio, table
from benchmarks.pairs import Case, cases, from_run
from pyrovae.evaluation import ImportanceSamplingWarning
from pyrovae.evaluation.estimates.standard_error import mean_and_error

TOLERANCES = (0.2, 0.1)
NORMAL = 1.96
"""The tolerance over the standard error, at the level of 95%."""
LARGEST_K_HAT = 0.7
COMPILED = 2_000_000
"""Draws from which ``pyrovae.log_likelihood`` compiles the programs."""
CHAINS, STEPS = 16, 10
Seconds = tuple[float, float]
guide = "guide"


def run(settings: Settings) -> None:
    """Two tables a pair, and the mean of the first beside a reference."""
    with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # columns of the tables
        for case in cases(settings):
            found = measured(settings, case)
            if not settings.quick or case.name != from_run:
                annealed(settings, case)
            if case.name == from_run:
                referred(settings, case, found)


def measured(settings: Settings, case: Case) -> dict[str, pyrovae.LogLikelihood]:
    """Print the table of a pair, and return the estimates."""
    draws = 200 if settings.quick else 5000
    estimates = {guide: partial(pyrovae.log_likelihood, case.pair, case.x, draws, progress=False)}
    estimates |= {named(tolerance): to_tolerance(case, tolerance) for tolerance in TOLERANCES}
    runs = {name: Run(estimate) for name, estimate in estimates.items()}
    warm_up(case, draws)
    times = interleaved(runs, rounds=1, steps=1)
    rows = []
    for name, each in runs.items():
        ratios = ratio(times[name], times[guide]), each.processor / runs[guide].processor
        rows.append([name, f"{times[name].median:.3g}", *(f"{value:.2f}" for value in ratios), *cells(each.found)])
    header = ["", "s", "of the guide's", "of its processor time"]
    header += ["met", "evaluations", "median", "k-hat above", "log p(x)", "± draws", "by"]
    table(settings, f"{case.name}: {len(case.x):,} data, the guide by {draws:,} draws", header, rows)
    return {name: each.found for name, each in runs.items()}


class Run:
    """A contender that keeps its estimate, and the processor's time.

    Args:
        estimate: the call.
    """

    found: pyrovae.LogLikelihood
    processor: float

    def __init__(self, estimate: Callable[[], pyrovae.LogLikelihood]) -> None:
        self._estimate = estimate

    def __call__(self, times: int) -> None:
        began = process_time()
        for _ in range(times):
            self.found = self._estimate()
        self.processor = process_time() - began


def warm_up(case: Case, draws: int) -> None:
    """Compile what is compiled later, and import what is imported where it is used."""
    compiled = draws * len(case.x) >= COMPILED
    pyrovae.log_likelihood(case.pair, case.x[: None if compiled else 2], draws, progress=False)
    pyrovae.log_likelihood(case.pair, case.x[:40], tolerance=TOLERANCES[0], compile=compiled, progress=False)


def named(tolerance: float) -> str:
    """Name the contender."""
    return f"tolerance {tolerance:g}"


def to_tolerance(case: Case, tolerance: float) -> Any:
    """Make the call that estimates log p(x) of the case to a tolerance."""
    return partial(pyrovae.log_likelihood, case.pair, case.x, tolerance=tolerance, progress=False)


def cells(found: pyrovae.LogLikelihood) -> list[str]:
    """Share met, evaluations, share of too large k-hats, mean with its error, and the proposals with their data."""
    effort, sampled = found.effort, np.ones(len(found.log_p), dtype=bool)
    taken, met, by = [f"{found.num_samples:,}"] * 2, "", ""
    if effort is not None:
        sampled = ~np.char.startswith(effort.proposal, "annealed")
        taken = [f"{middle(effort.evaluations):,.0f}" for middle in (np.mean, np.median)]
        met, by = f"{effort.share_met:.1%}", counts(effort.proposal)
    above = f"{(found.k_hat[sampled] > LARGEST_K_HAT).mean():.0%}" if sampled.any() else "none sampled"
    return [met, *taken, above, f"{found.mean:.2f}", f"{found.monte_carlo_error:.4f}", by]


def counts(proposals: np.ndarray) -> str:
    """Write each proposal with the number of its data."""
    return ", ".join(f"{name} {number}" for name, number in zip(*np.unique(proposals, return_counts=True), strict=True))


def annealed(settings: Settings, case: Case) -> None:
    """Print the table of annealing alone."""
    few = replace(case, x=case.x[: 2 if settings.quick else 8])
    lengths = (8, 16) if settings.quick else (64, 512)
    rows = [row for start in case.starts for row in annealed_rows(few, start, *lengths)]
    title = f"{case.name}: annealing alone, first {len(few.x)} data, {CHAINS} chains of {STEPS} leapfrog steps"
    header = ["", "T", "median standard error", "asked", "s", "ratio", "of processor time", "less the tolerance's"]
    table(settings, title, header, rows)


def annealed_rows(case: Case, start: str, first: int, most: int) -> Iterator[list[str]]:
    """Make a row for each tolerance: double the temperatures until the error is small enough, or there are the most."""
    found, seconds = anneal(case, first, start)
    for tolerance in TOLERANCES:
        while np.median(found.standard_error) > tolerance / NORMAL and found.temperatures < most:
            found, seconds = anneal(case, 2 * found.temperatures, start)
        yield [f"from the {start}, {named(tolerance)}", *beside(case, tolerance, found, seconds)]


def anneal(case: Case, temperatures: int, start: Any) -> tuple[pyrovae.AnnealedLikelihood, Seconds]:
    """Anneal all data of the case, and take the times, all and the processor's."""
    found: list[pyrovae.AnnealedLikelihood] = []
    options = {"start": start, "steps": STEPS, "progress": False}
    run = partial(pyrovae.annealed_importance_sampling, case.pair, case.x, CHAINS, temperatures, **options)
    seconds = timed(lambda: found.append(run()))
    return found[0], seconds


def timed(work: Callable[[], object]) -> Seconds:
    """The seconds that it takes, all and the processor's."""
    began = process_time()
    return elapsed(work), process_time() - began


def beside(case: Case, tolerance: float, found: Any, seconds: Seconds) -> list[str]:
    """Cells of annealing beside the tolerance on the same data."""
    ours: list[pyrovae.LogLikelihood] = []
    taken = timed(lambda: ours.append(to_tolerance(case, tolerance)()))
    error, asked = np.median(found.standard_error), tolerance / NORMAL
    difference = mean_and_error(found.log_p - ours[0].log_p)
    least = "" if error <= asked else "more than "
    return [
        f"{found.temperatures:,}",
        f"{error:.3f}",
        f"{asked:.3f}",
        f"{seconds[0]:.3g}",
        *(f"{least}{theirs / mine:.1f}" for theirs, mine in zip(seconds, taken, strict=True)),
        "{:+.3f} ± {:.3f}".format(*difference),
    ]


def referred(settings: Settings, case: Case, found: dict[str, pyrovae.LogLikelihood]) -> None:
    """Print the means over the first data beside annealing from the prior at many temperatures."""
    number, temperatures = (4, 32) if settings.quick else (100, 10_000)
    log_p, errors = reference(settings, replace(case, x=case.x[:number]), temperatures)
    rows = [["annealed from the prior", f"{log_p.mean():.3f}", f"{np.sqrt((errors**2).sum()) / len(errors):.4f}", ""]]
    for name in (guide, *map(named, TOLERANCES)):
        estimate = found[name]
        difference = "{:+.3f} ± {:.3f}".format(*mean_and_error(estimate.log_p[:number] - log_p))
        error = np.sqrt((estimate.standard_error[:number] ** 2).sum()) / number
        rows.append([name, f"{estimate.log_p[:number].mean():.3f}", f"{error:.4f}", difference])
    title = f"{case.name}: first {number} data beside annealing from the prior, T = {temperatures:,}, 8 chains"
    table(settings, title, ["", "log p(x)", "± draws", "less the annealed"], rows)


def reference(settings: Settings, case: Case, temperatures: int) -> tuple[np.ndarray, np.ndarray]:
    """Anneal for the reference, an hour on a CPU, or read what is kept of it: log p(x) and standard errors."""
    file = Path(settings.keep) / "reference.npz" if settings.keep else None
    if file and file.exists():
        with np.load(file) as kept:
            return kept["log_p"], kept["se"]
    found = pyrovae.annealed_importance_sampling(case.pair, case.x, 8, temperatures, seed=5, progress=False)
    if file:
        np.savez(file, log_p=found.log_p, se=found.standard_error)
    return found.log_p, found.standard_error
