"""What each prior makes of the same decoder: log p(x) of test images at one small budget.

784-300-300-40 and its mirror image, SiLU; the ELBO, its KL phased in over the first five epochs, batches of 100, Adam at
1e-3, images binarised anew at each use, no selection of an epoch. Every pair is tested on the same draw of the same test
images, by importance sampling with its own guide, so that differences between priors are paired. A trained and tested pair
leaves its estimate in the folder of ``--keep``, and is not trained again where it is there.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import pyrovae
from benchmarks.estimates import compared, dynamic, estimated, named
from benchmarks.measure import Settings, table
from benchmarks.task import pixels
from pyrovae import guides, priors
from pyrovae.networks import MLP
from pyrovae.objectives import BetaELBO

network = partial(MLP, hidden=(300, 300), activation="silu")
layer = partial(MLP, hidden=(100, 100), activation="silu")
vae = partial(pyrovae.VAE, (28, 28), 40, encoder=network, decoder=network)
base = "StandardNormal"
made: dict[str, Callable[[], pyrovae.VAE]] = {
    base: vae,
    "Mixture, 100 components": partial(vae, prior=partial(priors.Mixture, components=100)),
    "Vamp, 500 pseudo-inputs": partial(vae, prior=partial(priors.Vamp, components=500)),
    "Flow, 3 autoregressive steps": partial(vae, prior=partial(priors.Flow, kind="maf", transforms=3)),
    "2 layers, 40 and 20": partial(
        vae,
        prior=partial(priors.Hierarchical, upper=(20,), network=layer),
        guide=partial(guides.Hierarchical, upper=(20,), network=layer),
    ),
}


def run(settings: Settings) -> None:
    """One table, a row a prior."""
    train, test = pixels(settings)
    epochs, seeds, images, samples = (1, 1, 20, 100) if settings.quick else (20, 3, 1000, 2000)
    data = dynamic(train[:500] if settings.quick else train)
    x = dynamic(test[:images]).fixed_draw()
    objective = partial(BetaELBO, analytic_kl=True, warmup=5 * len(data) // 100)
    with TemporaryDirectory() as folder:
        kept = Path(settings.keep or folder)
        found: dict[str, list[pyrovae.LogLikelihood]] = {name: [] for name in made}
        for seed, name in product(range(seeds), made):
            file = named(kept, name, seed)
            found[name] += [estimated(file, made[name], objective, data, x, epochs=epochs, samples=samples, seed=seed)]
    title = f"log p(x) of {images} test images by {samples:,} draws, after {epochs} epochs, {seeds} starts"
    table(settings, title, *compared(found, base))
