"""What the tests of several rooms share beside programs."""

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import pyro
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from spaces import latents
from torch import Tensor, nn

import pyrovae.guides
import pyrovae.priors
from pyrovae.errors import InputError
from pyrovae.guides import Guide
from pyrovae.networks.conditional_network import ConditionalNetwork
from pyrovae.objectives import Measurement, Objective
from pyrovae.priors import Prior, StandardNormal
from pyrovae.runtime.parameters import Program
from pyrovae.vae import VAE

QUANTILE = 4.42
"""Of the normal distribution: a true statement fails at once in 100,000 seeds."""
POWER = 2.33
"""Of the normal distribution: an error of the size that is to be detected passes at once in 100 seeds."""


def assert_mean(draws: Tensor, expected: float | Tensor, detects: float) -> None:
    """A two-sided z-test at level 1e-5 that independent ``draws`` have this mean, with power 0.99 against ``detects``."""
    draws = draws.detach().flatten().double()
    error = draws.std().item() / math.sqrt(len(draws))
    assert (QUANTILE + POWER) * error < detects, f"too few draws: their mean has standard error {error:.2g}"
    mean = draws.mean().item()
    assert abs(mean - float(expected)) < QUANTILE * error, f"{mean:.6g} +- {error:.2g}, expected {float(expected):.6g}"


def flat(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    """The gradient with respect to all parameters as one vector."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(value) if gradient is None else gradient).flatten() for gradient, value in pairs])


def assert_mean_gradient(
    objective: Objective,
    pair: tuple[nn.Module, nn.Module, Tensor],
    expected: Tensor,
    repeats: int = 80,
    rows: int = 1000,
    detects: float = 0.2,
) -> None:
    """A z-test at level 1e-5 for every parameter, with power 0.99 against errors of this part of the largest gradient."""
    model, guide, x = pair
    module = objective(model, guide)
    module.start(x)
    pyro.set_rng_seed(1)
    parameters = [*model.parameters(), *guide.parameters()]
    draws = torch.stack([flat(module(x.expand(rows, -1)) / rows, parameters) for _ in range(repeats)])
    error = draws.std(0) / repeats**0.5
    assert ((QUANTILE + POWER) * error < detects * expected.abs().max()).all(), f"too few draws: {error}, {expected}"
    deviation = (draws.mean(0) - expected).abs()
    assert (deviation <= QUANTILE * error + 1e-12).all(), f"{draws.mean(0)} +- {error}, expected {expected}"


def measure(objective: Objective, model: Program, guide: Program, *args: Tensor, seed: int = 1) -> Measurement:
    """The objective on the pair from these random numbers."""
    module = objective(model, guide)
    module.start(*args)
    pyro.set_rng_seed(seed)
    return module.measure(*args)


def default(cls: type[Objective]) -> Objective:
    """The objective of a class as it comes, but with nothing taken from formulas, so that weights alone decide."""
    return cls(**({"analytic_kl": False} if "analytic_kl" in inspect.signature(cls).parameters else {}))  # pyright: ignore


def made(cls: type[Objective], particles: int) -> Objective:
    """The objective of a class, of few particles, in two groups where it has groups."""
    if "num_groups" in inspect.signature(cls).parameters:
        return cls(num_groups=2, group_size=particles)  # pyright: ignore
    return cls(num_particles=particles)


@contextmanager
def refused(*words: object, error: type[BaseException] = InputError) -> Iterator[pytest.ExceptionInfo]:
    """What runs within must raise ``error``, whose text has every one of these words.

    Words are what a message must hold however it is phrased: the name and the number found, the remedy in code. Words of
    the sentence around them are left to whoever writes it.
    """
    with pytest.raises(error) as caught:
        yield caught
    assert_says(str(caught.value), *words)


@contextmanager
def warned(*words: object, category: type[Warning] = UserWarning) -> Iterator[pytest.WarningsRecorder]:
    """What runs within must warn of ``category``, in one text that has every one of these words."""
    with pytest.warns(category) as caught:
        yield caught
    said = [str(warning.message) for warning in caught if issubclass(warning.category, category)]
    assert any(not lacking(text, *words) for text in said), f"no warning has all of {words}: {said}"


def assert_says(text: str, *words: object) -> None:
    """The text has every one of these words, each by itself: 3 is not in 13 or 3.5."""
    assert not lacking(text, *words), f"{lacking(text, *words)} not in: {text}"


def lacking(text: str, *words: object) -> list[str]:
    """Those of the words that the text does not have."""
    return [str(word) for word in words if not re.search(_by_itself(str(word)), text)]


def _by_itself(word: str) -> str:
    """A pattern for the word that is no part of a longer word or number."""
    before = r"(?<!\w)" * bool(re.match(r"\w", word)) + r"(?<!\d[.,])" * bool(re.match(r"\d", word))
    after = r"(?!\w)" * bool(re.search(r"\w$", word)) + r"(?![.,]\d)" * bool(re.search(r"\d$", word))
    return before + re.escape(word) + after


def slow_but(quick: Callable[..., bool], values: Iterable[Any]) -> list[ParameterSet]:
    """The values of a parametrised test, a tuple for several names; all but the quick ones are marked slow."""
    given = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*each, marks=() if quick(*each) else pytest.mark.slow) for each in given]


class RowNoise:
    """Standard normal numbers that belong to rows: in the place of what draws them for normal distributions of vectors.

    Only draws with a gradient count; others are made to look how programs run.

    Args:
        size: rows.
        index: the rows that are drawn for, one after another; all in order if not given.
    """

    def __init__(self, size: int, index: Tensor | None = None) -> None:
        self._noise = torch.randn(5, size, 2, generator=torch.Generator().manual_seed(7))
        self._index = torch.arange(size) if index is None else index

    def __call__(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        if not torch.is_grad_enabled():
            return torch.zeros(shape, dtype=dtype, device=device)
        particles, rows, _ = shape
        here, self._index = self._index[:rows], self._index[rows:]
        return self._noise[:particles, here].to(device, dtype)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Within it, they are drawn."""
        with mock.patch("torch.distributions.multivariate_normal._standard_normal", self):
            yield


def members(package: ModuleType, base: type) -> list[type]:
    """The public concrete subclasses of ``base`` in the files of ``package``: a new file is tested unasked.

    A ``ConditionalNetwork`` is made of a network by ``VAE``, and is none that one names.
    """
    files = [importlib.import_module(file.name) for file in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    classes = {value for file in files for value in vars(file).values() if inspect.isclass(value)} - {ConditionalNetwork}
    found = [cls for cls in classes if issubclass(cls, base) and not cls.__name__.startswith("_") and not _is_abstract(cls)]
    return sorted(found, key=lambda cls: cls.__name__)


def _is_abstract(cls: type) -> bool:
    """``inspect.isabstract``, which asks the metaclass, says no to every ``nn.Module``."""
    return any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))


def goes(prior: type[Prior], guide: type[Guide]) -> bool:
    """Whether the two draw the same sites, and know of no other reason not to."""
    try:
        vae = VAE((3,), 2, prior=prior, guide=guide)
    except InputError:
        return False
    return latents(vae.guide, torch.zeros(1, 3)) == latents(vae.model, torch.zeros(1, 3))


def prior_for(guide: type[Guide]) -> type[Prior]:
    """The first prior that a guide goes with, the simplest where it does."""
    return next(prior for prior in [StandardNormal, *members(pyrovae.priors, Prior)] if goes(prior, guide))


def guide_for(prior: type[Prior]) -> type[Guide]:
    """The first guide that a prior goes with."""
    return next(guide for guide in members(pyrovae.guides, Guide) if goes(prior, guide))
