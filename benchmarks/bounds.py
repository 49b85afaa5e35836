"""What each objective makes of the same model: log p(x) of test images after training by it.

784-200-200-50 and its mirror image, tanh, as in Burda et al. (2016); batches of 100, Adam at 1e-3, images binarised anew at
each use. Every pair is tested on the same draw of the same test images, by importance sampling with its own guide, so that
differences between objectives are paired. A trained and tested pair leaves its estimate in the folder of ``--keep``, and
is not trained again where it is there.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pyrovae
from benchmarks.estimates import compared, dynamic, estimated, named
from benchmarks.measure import Settings, table
from benchmarks.task import latent_dim, pixels
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
make = partial(pyrovae.VAE, (28, 28), latent_dim, encoder=network, decoder=network)


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
            file = named(kept, name, seed)
            found[name] += [estimated(file, make, objectives[name], data, x, epochs=epochs, samples=samples, seed=seed)]
    title = f"log p(x) of {images} test images by {samples:,} draws, after {epochs} epochs, {seeds} starts"
    table(settings, title, *compared(found, "ELBO"))
