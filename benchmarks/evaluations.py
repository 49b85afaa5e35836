"""Evaluations of the decoder for a datum, against the error of log p(x) that they buy, by this library and by its peers.

The trained pair on MNIST; a gradient counts as three evaluations. Every estimate is repeated with other seeds. Its error is
the root of the mean square, over repeats and images, of the distance to a reference: the fitted estimate at a tolerance of
0.02 nat. Standard deviation over repeats and bias, that mean distance itself, stand beside it. Pyro's, NumPyro's and
pythae's estimators are all importance sampling with the guide, so that they differ only in their random numbers. The
evaluations to an error of 0.1 nat are interpolated in both logarithms between the sizes that were tried.

A figure is written to ``docs``; estimates stay in the folder of ``--keep``, and are not made again where they are there.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import pyrovae
from benchmarks.measure import AbsentError, Settings, table
from benchmarks.networks import copy_weights
from benchmarks.pairs import case, from_run
from benchmarks.peers import Estimator, numpyro_svi, pyro_svi, pythae_trainer
from benchmarks.task import Task, mlp_task
from pyrovae.evaluation import ImportanceSamplingWarning
from pyrovae.evaluation.likelihood.tolerance.annealed_tries import GRADIENT

Array = NDArray[np.float64]
FIGURE = Path(__file__).parents[1] / "docs" / "evaluations.png"
CHAINS, STEPS = 16, 10
ERROR = 0.1
"""The error that is asked for, in nats."""
reference = "fitted to the reference"


@dataclass(frozen=True, eq=False)
class Work:
    """The pair, and images, shape ``(B, 28, 28)``."""

    vae: pyrovae.VAE
    x: Tensor

    def task(self) -> Task:
        """The pair's networks, for the peers."""
        task = mlp_task(100, 1, self.x)
        copy_weights(self.vae.guide.encoder, task.encoder)
        copy_weights(self.vae.model.decoder, task.decoder)
        return task


@dataclass(frozen=True, eq=False)
class Repeats:
    """Estimates with several seeds.

    Attributes:
        log_p: shape ``(repeats, B)``, in nats.
        evaluations: a datum's, in the mean.
    """

    log_p: Array
    evaluations: float

    def error(self, exact: Array) -> float:
        """The root mean square distance."""
        return float(np.sqrt(np.square(self.log_p - exact).mean()))

    def deviation(self) -> float:
        """The root mean variance over repeats."""
        return float(np.sqrt(self.log_p.var(0, ddof=1).mean()))

    def bias(self, exact: Array) -> float:
        """The mean distance."""
        return float((self.log_p - exact).mean())


Estimate = Callable[[int], tuple[Array, float]]
"""Estimates log p(x) of each image at a seed, and says the mean number of evaluations."""


def run(settings: Settings) -> None:
    """Two tables and a figure."""
    trained = case(settings, from_run)
    work = Work(trained.pair, trained.x[: 2 if settings.quick else 20])
    with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # what the tables are about
        exact = repeated(settings, reference, fitted(work, 0.2 if settings.quick else 0.02), 1).log_p[0]
        found, absent = measured(settings, work)
    rows = [cells(name, size, repeats, exact) for name, sizes in found.items() for size, repeats in sizes.items()]
    title = f"errors of log p(x) of {len(work.x)} images"
    table(settings, title, ["", "repeats", "evaluations", "standard deviation", "bias", "error"], rows)
    summary = [[name, *to_error(list(sizes.values()), exact)] for name, sizes in found.items()]
    summary += [[name, reason] for name, reason in absent.items()]
    table(
        settings,
        f"evaluations a datum to an error of {ERROR} nat",
        ["", "evaluations", "error", "if it fell on so"],
        summary,
    )
    if not settings.quick:
        draw(found, exact)


def measured(settings: Settings, work: Work) -> tuple[dict[str, dict[str, Repeats]], dict[str, str]]:
    """Repeat the estimates of all contenders, and say why others are absent."""
    found: dict[str, dict[str, Repeats]] = {}
    absent: dict[str, str] = {}
    for name, (repeats, make) in contenders(settings).items():
        try:
            estimates = make(work)
        except AbsentError as reason:
            absent[name] = str(reason)
        else:
            found[name] = {size: repeated(settings, f"{name} {size}", run, repeats) for size, run in estimates.items()}
    return found, absent


def contenders(settings: Settings) -> dict[str, tuple[int, Callable[[Work], dict[str, Estimate]]]]:
    """The number of repeats of each, and what makes its estimates by size."""
    draws, tolerances, temperatures = (100, 1_000, 5_000), (0.8, 0.4, 0.2), (16, 64)
    if settings.quick:
        draws, tolerances, temperatures = (20, 100), (0.8,), (4, 8)
    many, some, few = (2, 2, 2) if settings.quick else (20, 10, 3)
    return {
        "pyrovae, guide": (many, partial(guides, draws)),
        "pyrovae, fitted": (some, lambda work: {f"tolerance = {number:g}": fitted(work, number) for number in tolerances}),
        "pyrovae, annealed from the guide": (few, partial(anneals, temperatures)),
        "Pyro, vectorized_importance_weights": (many, partial(peers, pyro_svi.log_likelihood, draws)),
        "NumPyro, RenyiELBO(alpha=0)": (many, partial(peers, numpyro_svi.log_likelihood, draws)),
        "pythae, get_nll": (many, partial(peers, pythae_trainer.log_likelihood, draws)),
    }


def guides(draws: tuple[int, ...], work: Work) -> dict[str, Estimate]:
    """The guide's draws, by number."""

    def estimate(number: int, seed: int) -> tuple[Array, float]:
        return pyrovae.log_likelihood(work.vae, work.x, number, seed=seed, progress=False).log_p, number

    return {f"K = {number:,}": partial(estimate, number) for number in draws}


def fitted(work: Work, tolerance: float) -> Estimate:
    """An estimate to a tolerance."""

    def estimate(seed: int) -> tuple[Array, float]:
        found: Any = pyrovae.log_likelihood(work.vae, work.x, tolerance=tolerance, seed=seed, progress=False)
        return found.log_p, found.effort.evaluations.mean()

    return estimate


def anneals(temperatures: tuple[int, ...], work: Work) -> dict[str, Estimate]:
    """Annealing alone from the guide, by the number of temperatures; pilot chains are counted too."""

    def estimate(number: int, seed: int) -> tuple[Array, float]:
        options = {"start": "guide", "steps": STEPS, "seed": seed, "progress": False}
        found = pyrovae.annealed_importance_sampling(work.vae, work.x, CHAINS, number, **options)
        pilot = 20 + min(max(number // 5, 50), 500)
        return found.log_p, GRADIENT * CHAINS * STEPS * (number + pilot)

    return {f"T = {number}": partial(estimate, number) for number in temperatures}


def peers(build: Callable[[Task], Estimator], draws: tuple[int, ...], work: Work) -> dict[str, Estimate]:
    """A peer's estimator on the pair's weights, by the number of draws."""
    estimator = build(work.task())

    def estimate(number: int, seed: int) -> tuple[Array, float]:
        return estimator(work.x.flatten(1), number, seed).double().numpy(), number

    return {f"K = {number:,}": partial(estimate, number) for number in draws}


def repeated(settings: Settings, name: str, estimate: Estimate, repeats: int) -> Repeats:
    """Estimate with so many seeds, or read what is kept of that."""
    file = Path(settings.keep) / f"{name.replace(' ', '').replace(',', '')}.npz" if settings.keep else None
    if file and file.exists():
        with np.load(file) as kept:
            return Repeats(kept["log_p"], float(kept["evaluations"]))
    log_p, evaluations = zip(*(estimate(seed) for seed in range(1, repeats + 1)), strict=True)
    found = Repeats(np.stack(log_p), float(np.mean(evaluations)))
    if file:
        np.savez(file, log_p=found.log_p, evaluations=found.evaluations)
    return found


def cells(name: str, size: str, repeats: Repeats, exact: Array) -> list[str]:
    """A row of the first table."""
    errors = repeats.deviation(), repeats.bias(exact), repeats.error(exact)
    counts = str(len(repeats.log_p)), f"{repeats.evaluations:,.0f}"
    return [f"{name}, {size}", *counts, *(f"{error:+.3f}" for error in errors)]


def to_error(sizes: list[Repeats], exact: Array) -> list[str]:
    """The evaluations at which the error is what is asked for, or the largest number that was tried, with its error."""
    evaluations, errors = np.array([(size.evaluations, size.error(exact)) for size in sizes]).T
    if errors[-1] > ERROR:
        return [f"more than {evaluations[-1]:,.0f}", f"{errors[-1]:.2f}", extrapolated(evaluations[-2:], errors[-2:])]
    if errors[0] <= ERROR:
        return [f"at most {evaluations[0]:,.0f}", f"{errors[0]:.2f}", ""]
    order = np.argsort(errors)
    logarithm = np.interp(np.log(ERROR), np.log(errors[order]), np.log(evaluations[order]))
    return [f"{np.exp(logarithm):,.0f}", f"{ERROR:.2f}", ""]


def extrapolated(evaluations: Array, errors: Array) -> str:
    """The evaluations that were needed if the error fell on as between two sizes."""
    (before, last), (error_before, error) = np.log(evaluations), np.log(errors)
    slope = (error - error_before) / (last - before)
    needed = last + (np.log(ERROR) - error) / slope if slope < 0 else np.inf
    return f"{np.exp(needed):,.0f}" if needed < last + np.log(100) else "more than 100 times as many"


def draw(found: dict[str, dict[str, Repeats]], exact: Array) -> None:
    """Write the figure: the error against the evaluations, both as logarithms."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (name, sizes), marker in zip(found.items(), "os^xv+", strict=False):
        points = [(repeats.evaluations, repeats.error(exact)) for repeats in sizes.values()]
        line = "-" if name.startswith("pyrovae") else ":"
        axes.loglog(*zip(*points, strict=True), marker=marker, label=name, linestyle=line)
    axes.axhline(ERROR, color="grey", linewidth=0.8)
    axes.set(xlabel="evaluations of the decoder a datum", ylabel="error of log p(x), nats")
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(FIGURE, dpi=150)
    plt.close(figure)
