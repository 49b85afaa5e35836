"""Pairs of many kinds, trained for a few epochs, each with the data whose log p(x) is to be estimated.

784-200-200-50 and back with tanh, batches of 100, Adam at 1e-3, images binarised anew at each use; the first two pairs by
the importance-weighted bound with 5 particles for 20 epochs, the others by the ELBO for a few. The pair on MNIST may be a
run's; the weights of all others stay in the folder of ``--keep``, and are not trained again where they are there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import pyrovae
from benchmarks.bounds import make, network
from benchmarks.estimates import dynamic
from benchmarks.measure import Settings
from benchmarks.programs.functions import functions
from benchmarks.task import pixels
from pyrovae import guides, likelihoods, priors
from pyrovae.data import MNIST, Binarize, Data, Digits, FashionMNIST, Split
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.objectives import Objective

layer = partial(network, hidden=(100, 100))
small = partial(network, hidden=(128, 128))


@dataclass(frozen=True, eq=False)
class Case:
    """A trained pair and data.

    Attributes:
        name: what it is called.
        pair: a ``VAE``, or two programs.
        x: the data, shape ``(N, *event_shape)``.
        starts: where chains of annealing alone begin.
    """

    name: str
    pair: Any
    x: Tensor
    starts: tuple[Start, ...] = ("guide", "prior")


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a case is made.

    Attributes:
        data: reads the training data, and the held-out ones as they are evaluated.
        make: builds the pair, and the module whose weights are trained and kept.
        objective: what it is trained by.
        epochs: how many epochs it is trained for.
        number: how many data are evaluated.
        starts: where chains of annealing alone begin; not at a flow, whose density takes a pass a latent dimension, and its
            gradient as many.
    """

    data: Callable[[Settings], tuple[Split, Tensor]]
    make: Callable[[], tuple[Any, nn.Module]]
    objective: Callable[[], Objective] = pyrovae.ELBO
    epochs: int = 5
    number: int = 1000
    starts: tuple[Start, ...] = ("guide", "prior")


def mnist(settings: Settings) -> tuple[Split, Tensor]:
    """MNIST, binarised anew at each use, and one draw of its test images; without a folder of data, what stands for it."""
    if settings.root:
        return read(MNIST, settings.root)
    train, test = pixels(settings)
    return dynamic(train), dynamic(test).fixed_draw()


def flat_mnist(settings: Settings) -> tuple[Split, Tensor]:
    """The same as vectors of 784 numbers."""
    train, test = mnist(settings)
    return replace(train, x=train.x.flatten(1)), test.flatten(1)  # pyright: ignore


def fashion(settings: Settings) -> tuple[Split, Tensor]:
    """Fashion-MNIST in the same way; without a folder of data, what stands for MNIST."""
    return read(FashionMNIST, settings.root) if settings.root else mnist(settings)


def read(data_set: Callable[..., Data], root: str) -> tuple[Split, Tensor]:
    """Read a data set that is binarised anew at each use, and one draw of its test images."""
    data = data_set(root, download=False, binarize="dynamic")
    return data.train, data.test.fixed_draw()


def digits(_: Settings) -> tuple[Split, Tensor]:
    """The digits of scikit-learn, with mean 0 and standard deviation 1 over all pixels."""
    data = Digits()
    mean, deviation = data.train.x.mean(), data.train.x.std()  # pyright: ignore
    train, test = ((part.x - mean) / deviation for part in (data.train, data.test))
    return Split(train, None, np.arange(len(train)), Binarize.parse("none")), test


def vae(**parts: Any) -> tuple[pyrovae.VAE, nn.Module]:
    """Build a ``VAE`` of images, with some of its parts exchanged."""
    made = make(**parts)
    return made, made


def student_t() -> tuple[pyrovae.VAE, nn.Module]:
    """Build a ``VAE`` of the digits whose pixels have heavy tails."""
    likelihood = partial(likelihoods.StudentT, scale=0.3, learned="shared")
    made = pyrovae.VAE((8, 8), 10, likelihood=likelihood, encoder=small, decoder=small)
    return made, made


def programs() -> tuple[Any, nn.Module]:
    """Build two plain functions."""
    pair = functions()
    return (pair.model, pair.guide), pair.networks


two_layers = partial(
    vae,
    prior=partial(priors.Hierarchical, upper=(20,), network=layer),
    guide=partial(guides.Hierarchical, upper=(20,), network=layer),
)
from_run = "MNIST, configs/mnist_iwae.yaml"
recipes: dict[str, Recipe] = {
    from_run: Recipe(mnist, vae, partial(pyrovae.IWAE, 5), epochs=20),
    "Fashion-MNIST, binarised": Recipe(fashion, vae, partial(pyrovae.IWAE, 5), epochs=20),
    "MNIST, Vamp prior of 100": Recipe(mnist, partial(vae, prior=partial(priors.Vamp, components=100))),
    "MNIST, 2 layers, 50 and 20": Recipe(mnist, two_layers),
    "digits, Student-t pixels": Recipe(digits, student_t, epochs=40),
    "MNIST, flow guide (maf)": Recipe(mnist, partial(vae, guide=partial(guides.Flow, kind="maf")), starts=("prior",)),
    "MNIST, two functions": Recipe(flat_mnist, programs),
}
quick = from_run, "digits, Student-t pixels"
"""The pairs of a small setting."""


def cases(settings: Settings) -> Iterator[Case]:
    """Train the pairs, one after another as they are asked for, or read what is kept of them."""
    return (case(settings, name) for name in (quick if settings.quick else recipes))


def case(settings: Settings, name: str) -> Case:
    """Train one pair, or read what is kept of it."""
    recipe = recipes[name]
    train, x = recipe.data(settings)
    x = x[: 4 if settings.quick else recipe.number].to(settings.device)
    if name == from_run and settings.run:
        return Case(name, pyrovae.load(settings.run).to(settings.device), x)
    torch.manual_seed(0)
    pair, weights = recipe.make()
    file = kept(settings, name)
    if file and file.exists():
        weights.load_state_dict(torch.load(file))
    else:
        train_pair(recipe, pair, train, quick=settings.quick)
    if file:
        torch.save(weights.state_dict(), file)
    weights.to(settings.device)
    return Case(name, pair, x, recipe.starts)


def kept(settings: Settings, name: str) -> Path | None:
    """Return the file in which a pair's weights are kept, if they are."""
    if settings.keep is None:
        return None
    folder = Path(settings.keep)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{''.join(letter for letter in name if letter.isalnum())}.pt"


def train_pair(recipe: Recipe, pair: Any, data: Split, *, quick: bool) -> None:
    """Train a pair in place."""
    epochs = 1 if quick else recipe.epochs
    if quick:
        data = Split(data.x[:500], None, data.index[:500], data.binarize)  # pyright: ignore
    if isinstance(pair, pyrovae.VAE):
        pair.start_at_mean(data.x.mean(0))  # pyright: ignore
    pyrovae.fit(pair, data, objective=recipe.objective(), epochs=epochs, batch_size=100, seed=0, progress=False)
