"""How often 95% intervals of log p(x) cover what is known to be right, and whether k-hat says where they do not.

A linear-Gaussian program, whose log p(x) is a formula, in several dimensions; its exact posterior widened or shifted as
proposal. Each datum is a repeat. Bidirectional Monte Carlo brackets a datum if log p(x) lies between the lower bound and the
upper one, each moved outwards by its own error at the level of one in a million.
"""

import warnings
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyrovae
from benchmarks.measure import Settings, table
from pyrovae.evaluation import ImportanceSamplingWarning

chains = 16


class LinearGaussian(nn.Module):
    r"""z ~ N(0, I), x | z ~ N(W z, s^2 I), with its posterior, moved by standard deviations and widened, as guide."""

    def __init__(self, dimensions: int, shift: float, widen: float) -> None:
        super().__init__()
        self.weight = torch.randn(dimensions + 5, dimensions) / sqrt(dimensions)
        self.noise = 0.8
        precision = torch.eye(dimensions) + self.weight.T @ self.weight / self.noise**2
        self.covariance = precision.inverse()
        self.factor = torch.linalg.cholesky(self.covariance)
        self.shift = shift * self.factor @ torch.full((dimensions,), 1.0 / sqrt(dimensions))
        self.widen = widen

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(self.covariance)), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, self.noise).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc = x @ self.weight @ self.covariance / self.noise**2 + self.shift
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.widen * self.factor))

    def draw(self, number: int) -> Tensor:
        """So many data."""
        z = torch.randn(number, len(self.covariance))
        return z @ self.weight.T + self.noise * torch.randn(number, len(self.weight))

    def log_p(self, x: Tensor) -> np.ndarray:
        """The formula, shape ``(N,)``."""
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(len(self.weight))
        return dist.MultivariateNormal(torch.zeros(len(self.weight)), covariance).log_prob(x).numpy()


def proposals(dimensions: int) -> dict[str, tuple[float, float]]:
    """Shift and widening by name."""
    wide = 1.0 + 0.8 / sqrt(dimensions)
    return {"good": (0.0, 1.05), "widened": (0.0, wide), "shifted": (0.4, 1.0), "far": (1.5, 1.0), "narrow": (0.0, 0.6)}


def run(settings: Settings) -> None:
    """Three tables."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        sampled(settings)
        annealed(settings)
        to_tolerance(settings)
    finally:
        torch.set_default_dtype(before)


def sampled(settings: Settings) -> None:
    """Importance sampling, by dimension and proposal."""
    repeats, draws = (50, 200) if settings.quick else (1000, 5000)
    rows = []
    for dimensions in (2, 50) if settings.quick else (2, 10, 50):
        for name, (shift, widen) in proposals(dimensions).items():
            torch.manual_seed(0)
            pair = LinearGaussian(dimensions, shift, widen)
            x = pair.draw(repeats)
            with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # a column of the table
                found = pyrovae.log_likelihood(pair, x, draws)
            rows.append([f"{dimensions}, {name}", *_cells(found, pair.log_p(x)), *_k_hats(found)])
    header = ["", "error, nats", "± draws", "95% cover", "k-hat, median", f"above {found.threshold:.2f}"]
    table(settings, f"importance sampling, K = {draws:,}, {repeats:,} repeats", header, rows)


def annealed(settings: Settings) -> None:
    """Annealing and its bounds, by dimension, where chains begin, and temperatures."""
    repeats, lengths = (20, (5, 10)) if settings.quick else (1000, (10, 40, 160))
    rows = []
    for dimensions in (2,) if settings.quick else (2, 10, 50):
        for name in ("prior", "guide, shifted", "guide, far"):
            torch.manual_seed(0)
            pair = LinearGaussian(dimensions, *proposals(dimensions).get(name.rpartition(" ")[2], (0.0, 1.0)))
            x = pair.draw(repeats)
            options = {"start": name.partition(",")[0], "steps": 5, "max_rows": 2**14}
            for temperatures in lengths:
                run = partial(pyrovae.annealed_importance_sampling, pair, x, chains, temperatures)
                bounds = bracketing(pair, repeats, temperatures, options)
                found = run(**options)
                cells = [*_cells(found, pair.log_p(x)), f"{found.share_unmet:.0%}"]
                rows.append([f"{dimensions}, {name}, T = {temperatures}", *cells, *bounds])
    header = ["", "error, nats", "± draws", "95% cover", "fewer than half count", "gap", "brackets"]
    table(settings, f"annealing, {chains} chains, {repeats:,} repeats", header, rows)


def to_tolerance(settings: Settings, tolerance: float = 0.1) -> None:
    """Estimates to a tolerance, by dimension and proposal."""
    rows = []
    for dimensions in (2, 10) if settings.quick else (2, 10, 50, 200):
        number = 20 if settings.quick else 500 if dimensions > 100 else 1000
        for name, moved in proposals(dimensions).items():
            torch.manual_seed(0)
            pair = LinearGaussian(dimensions, *moved)
            x = pair.draw(number)
            with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # a column of the table
                found = pyrovae.log_likelihood(pair, x, tolerance=tolerance, progress=False)
            rows.append([f"{dimensions}, {name}", *_met_cells(found, pair.log_p(x))])
    header = ["", "met", "error, nats", "± draws", "95% cover", "of those met", "evaluations, mean", "by"]
    repeats = "20 repeats" if settings.quick else "1,000 repeats, in 200 dimensions 500"
    table(settings, f"to a tolerance of {tolerance} nats, {repeats}", header, rows)


def bracketing(pair: LinearGaussian, repeats: int, temperatures: int, options: dict[str, Any]) -> list[str]:
    """The gap, and how many of the repeats are bracketed, of data that the model draws."""
    found = pyrovae.bidirectional(pair, pair.draw(repeats), chains, temperatures, seed=1, **options)
    low, high = found.interval(1.0 - 1e-6)
    exact = pair.log_p(torch.from_numpy(found.data))
    return ["{:.4f} ± {:.4f}".format(*found.gap), f"{int(((low <= exact) & (exact <= high)).sum())} of {repeats}"]


def _cells(found: Any, exact: np.ndarray) -> list[str]:
    error, (low, high) = found.log_p - exact, found.interval()
    cover = ((low <= exact) & (exact <= high)).mean()
    return [f"{error.mean():+.4f}", f"{found.monte_carlo_error:.4f}", f"{cover:.1%}"]


def _met_cells(found: pyrovae.LogLikelihood, exact: np.ndarray) -> list[str]:
    effort, (low, high) = found.effort, found.interval()
    if effort is None:
        raise ValueError("the estimate has no effort; pass a tolerance")
    covered = ((low <= exact) & (exact <= high))[effort.met]
    of_met = f"{covered.mean():.1%}" if len(covered) else "none met"
    by = ", ".join(f"{name} {number}" for name, number in zip(*np.unique(effort.proposal, return_counts=True), strict=True))
    return [f"{effort.share_met:.1%}", *_cells(found, exact), of_met, f"{effort.evaluations.mean():,.0f}", by]


def _k_hats(found: pyrovae.LogLikelihood) -> list[str]:
    return [f"{np.nanmedian(found.k_hat):.2f}", f"{found.share_untrusted:.0%}"]
