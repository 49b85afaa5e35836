"""Pairs that are trained on MNIST and tested by importance sampling, and the rows of a table that compares them."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pyrovae
from pyrovae.data import Binarize
from pyrovae.data.split import Split
from pyrovae.evaluation import ImportanceSamplingWarning
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.objectives import Objective

header = ["", "log p(x)", "± data", "± draws", "spread of starts", "less {}'s", "its bound K = 1", "k-hat above"]


def dynamic(pixels: Tensor) -> Split:
    """Grey images that are binarised anew at each use."""
    return Split(pixels, None, np.arange(len(pixels)), Binarize.parse("dynamic"))


def estimated(
    file: Path,
    make: Callable[[], pyrovae.VAE],
    objective: Callable[[], Objective],
    data: Split,
    x: Tensor,
    *,
    epochs: int,
    samples: int,
    seed: int,
) -> pyrovae.LogLikelihood:
    """The estimate of one pair, as it was kept in a file or from training."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        vae = make().to(x.device)
        vae.start_at_mean(data.x.mean(0))  # pyright: ignore
        settings = {"epochs": epochs, "batch_size": 100, "seed": seed, "progress": False}
        pyrovae.fit(vae, data, objective=objective(), **settings)
        with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # a column of the table
            pyrovae.log_likelihood(vae, x, samples).to_netcdf(file)
    return pyrovae.LogLikelihood.from_netcdf(file)


def named(folder: Path, name: str, seed: int) -> Path:
    """The file of one pair."""
    return folder / f"{name.replace(' ', '').replace(',', '-')}-{seed}.nc"


def compared(found: dict[str, list[pyrovae.LogLikelihood]], base: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows: estimates of several starts by name, each less those of ``base``, paired over the data."""
    reference = _mean_over_starts(found[base])
    rows = [[name, *_cells(estimates, reference)] for name, estimates in found.items()]
    return [column.format(base) for column in header], rows


def _mean_over_starts(estimates: list[pyrovae.LogLikelihood]) -> np.ndarray:
    """Log p(x) of each datum, shape ``(N,)``."""
    return np.mean([estimate.log_p for estimate in estimates], 0)


def _cells(estimates: list[pyrovae.LogLikelihood], base: np.ndarray) -> list[str]:
    """Means over starts of mean, errors, ELBO and share of too large k-hats, with the paired difference to ``base``."""
    log_p = _mean_over_starts(estimates)
    mean, error = mean_and_error(log_p)
    difference, its_error = mean_and_error(log_p - base)
    draws = np.mean([estimate.monte_carlo_error for estimate in estimates]) / len(estimates) ** 0.5
    spread = np.std([estimate.mean for estimate in estimates], ddof=1) if len(estimates) > 1 else np.nan
    elbo, above = (
        np.mean(values) for values in zip(*((e.bounds[1].mean(), e.share_untrusted) for e in estimates), strict=True)
    )
    return [
        f"{mean:.2f}",
        f"{error:.2f}",
        f"{draws:.3f}",
        f"{spread:.2f}",
        f"{difference:+.2f} ± {its_error:.2f}",
        f"{elbo:.2f}",
        f"{above:.0%}",
    ]
