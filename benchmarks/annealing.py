"""Annealed importance sampling beside importance sampling: log p(x) of one trained decoder, and the time of each.

The setting of Wu et al. (2017, arXiv:1611.04273, table 1): 50 latent dimensions, 784-200-200-50 and back, 16 chains with 10
leapfrog steps, 100 test images. All estimate the same numbers from below in the mean, so that of two estimates the higher is
the better one; differences are paired over the images. The gap is what bidirectional Monte Carlo with the same settings
leaves open on images that the decoder itself draws. Times include recording.
"""

import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pyrovae
from benchmarks.bounds import make
from benchmarks.estimates import dynamic
from benchmarks.measure import Settings, elapsed, table
from benchmarks.task import pixels
from pyrovae.evaluation import ImportanceSamplingWarning
from pyrovae.evaluation.estimates.standard_error import mean_and_error

chains = 16


def run(settings: Settings) -> None:
    """One table."""
    train, test = pixels(settings)
    epochs, images = (1, 2) if settings.quick else (50, 100)
    vae, x = trained(train[:500] if settings.quick else train, epochs), dynamic(test[:images]).fixed_draw()
    estimates: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # what the table is about
        for name, estimate in contenders(vae, x, settings.quick).items():
            seconds[name] = elapsed(lambda name=name, estimate=estimate: estimates.update({name: estimate()}))
    best = list(estimates)[-1]
    rows = [
        [name, *cells(found, estimates[best].log_p), f"{seconds[name]:.3g}", gap(vae, x, found)]
        for name, found in estimates.items()
    ]
    title = f"log p(x) of {images} test images under one decoder, trained for {epochs} epochs"
    header = ["", "log p(x)", "± data", "± draws", "less the last", "effective draws, median", "s", "gap"]
    table(settings, title, header, rows)


def trained(pixels: Tensor, epochs: int) -> pyrovae.VAE:
    """A pair that was trained by the ELBO."""
    torch.manual_seed(0)
    vae = make().to(pixels.device)
    data = dynamic(pixels)
    vae.start_at_mean(data.x.mean(0))  # pyright: ignore
    pyrovae.fit(vae, data, epochs=epochs, batch_size=100, seed=0, progress=False)
    return vae


def contenders(vae: pyrovae.VAE, x: Tensor, quick: bool) -> dict[str, Any]:
    """By importance sampling and by annealing, the most careful last."""
    draws, temperatures = ((50, 200), (10, 20)) if quick else ((5_000, 100_000), (1_000, 10_000))
    sample = partial(pyrovae.log_likelihood, vae, x)
    anneal = partial(pyrovae.annealed_importance_sampling, vae, x, chains)
    return {
        **{f"importance sampling, K = {number:,}": partial(sample, number) for number in draws},
        f"annealed from the guide, T = {temperatures[0]:,}": partial(anneal, temperatures[0], start="guide"),
        **{f"annealed from the prior, T = {number:,}": partial(anneal, number) for number in temperatures},
    }


def cells(found: Any, best: np.ndarray) -> list[str]:
    """Mean, errors, the difference to the best, and how many draws a datum count."""
    (mean, error), (difference, its_error) = mean_and_error(found.log_p), mean_and_error(found.log_p - best)
    return [
        f"{mean:.2f}",
        f"{error:.2f}",
        f"{found.monte_carlo_error:.3f}",
        f"{difference:+.3f} ± {its_error:.3f}",
        f"{np.median(found.effective_sample_size):.1f}",
    ]


def gap(vae: pyrovae.VAE, x: Tensor, found: Any) -> str:
    """Between the bounds on images that the decoder draws; blank for importance sampling."""
    if not isinstance(found, pyrovae.AnnealedLikelihood):
        return ""
    between = pyrovae.bidirectional(vae, x, chains, found.temperatures, start=found.start).gap
    return "{:.3f} ± {:.3f}".format(*between)
