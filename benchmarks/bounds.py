"""What each objective makes of the same model: log p(x) of test images after training by it.

784-200-200-50 and its mirror image, tanh, as in Burda et al. (2016); batches of 100, Adam at 1e-3, images binarised anew at
each use. Every pair is tested on the same draw of the same test images, by importance sampling with its own guide, so that
differences between objectives are paired. A trained and tested pair leaves its estimate in the folder of ``--keep``, and
is not trained again where it is there.
"""

import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

import pyrovae
from benchmarks.measure import Settings, table
from benchmarks.task import latent_dim, pixels
from pyrovae.data import Binarize
from pyrovae.data.split import Split
from pyrovae.evaluation import ImportanceSamplingWarning
from pyrovae.evaluation.average import mean_and_error
from pyrovae.networks import MLP
from pyrovae.objectives import CIWAE, MIWAE, Objective

objectives: dict[str, Callable[[], Objective]] = {
    "ELBO": pyrovae.ELBO,
    "IWAE, K = 5": partial(pyrovae.IWAE, 5),
    "IWAE, K = 50": partial(pyrovae.IWAE, 50),
    "IWAE by DReG, K = 50": partial(pyrovae.IWAE, 50, "dreg"),
    "MIWAE, M = 8, K = 8": partial(MIWAE, 8, 8),
    "CIWAE, beta = 0.5, K = 50": partial(CIWAE, 0.5, 50),
}
network = partial(MLP, hidden=(200, 200), activation="tanh")


def run(settings: Settings) -> None:
    """One table, a row an objective."""
    train, test = pixels(settings)
    epochs, seeds, images, samples = (1, 1, 20, 100) if settings.quick else (20, 3, 1000, 5000)
    data = dynamic(train[:500] if settings.quick else train)
    x = dynamic(test[:images]).fixed_draw()
    with TemporaryDirectory() as folder:
        kept = Path(settings.keep or folder)
        found: dict[str, list[pyrovae.LogLikelihood]] = {name: [] for name in objectives}
        for seed, name in product(range(seeds), objectives):
            found[name].append(estimated(kept, name, seed, data, x, epochs, samples))
    title = f"log p(x) of {images} test images by {samples:,} draws, after {epochs} epochs, {seeds} starts"
    header = ["", "log p(x)", "± data", "± draws", "spread of starts", "less ELBO's", "its bound K = 1", "k-hat above"]
    base = mean_over_seeds(found["ELBO"])
    table(settings, title, header, [[name, *cells(estimates, base)] for name, estimates in found.items()])


def dynamic(pixels: Tensor) -> Split:
    """Grey images that are binarised anew at each use."""
    return Split(pixels, None, np.arange(len(pixels)), Binarize.parse("dynamic"))


def estimated(
    folder: Path, name: str, seed: int, data: Split, x: Tensor, epochs: int, samples: int
) -> pyrovae.LogLikelihood:
    """The estimate of one pair, as it was kept or from training."""
    file = folder / f"{name.replace(' ', '').replace(',', '-')}-{seed}.nc"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        vae = pyrovae.VAE((28, 28), latent_dim, encoder=network, decoder=network).to(x.device)
        vae.start_at_mean(data.x.mean(0))
        settings = {"epochs": epochs, "batch_size": 100, "seed": seed, "progress": False}
        pyrovae.fit(vae.model, vae.guide, data, objective=objectives[name](), **settings)
        with warnings.catch_warnings(category=ImportanceSamplingWarning, action="ignore"):  # a column of the table
            pyrovae.log_likelihood(vae.model, vae.guide, x, samples).to_netcdf(file)
    return pyrovae.LogLikelihood.from_netcdf(file)


def mean_over_seeds(estimates: list[pyrovae.LogLikelihood]) -> np.ndarray:
    """Log p(x) of each datum, shape ``(N,)``."""
    return np.mean([estimate.log_p for estimate in estimates], 0)


def cells(estimates: list[pyrovae.LogLikelihood], base: np.ndarray) -> list[str]:
    """Means over starts of mean, errors, ELBO and share of too large k-hats, with the paired difference to ``base``."""
    log_p = mean_over_seeds(estimates)
    mean, error = mean_and_error(log_p)
    difference, its_error = mean_and_error(log_p - base)
    draws = np.mean([estimate.monte_carlo_error for estimate in estimates]) / len(estimates) ** 0.5
    spread = np.std([estimate.mean for estimate in estimates], ddof=1) if len(estimates) > 1 else np.nan
    elbo, above = (np.mean(values) for values in zip(*((e.bounds[1].mean(), e.share_above) for e in estimates), strict=True))
    return [
        f"{mean:.2f}",
        f"{error:.2f}",
        f"{draws:.3f}",
        f"{spread:.2f}",
        f"{difference:+.2f} ± {its_error:.2f}",
        f"{elbo:.2f}",
        f"{above:.0%}",
    ]
