"""The work of the scikit-learn estimator: the pair for a matrix of rows, and what is computed of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pyrovae.engine.pair import Pair
from pyrovae.errors import InputError
from pyrovae.evaluation import log_likelihood, posterior_means
from pyrovae.evaluation.latent.means import mean
from pyrovae.evaluation.likelihood.tolerance.goal import BUDGET, Goal
from pyrovae.guides import Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import Build, Shape
from pyrovae.priors import Prior
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.parameters import keeping_its_own
from pyrovae.runtime.seeds import seeded, seeds_of_rows
from pyrovae.standardize import Rescaled, RescaledNormal, Units
from pyrovae.vae import VAE

DTYPES = [np.float64, np.float32]
"""Precisions that are kept; numbers of any other type become the first."""

LEVEL = 0.95
"""Level of the interval that a tolerance is for."""


class Fitted(Protocol):
    """Attributes of a fitted estimator that the checks of rows and latents need."""

    vae_: VAE
    latent_dim: int


def checked_matrix(estimator: BaseEstimator, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
    """Check a matrix as scikit-learn does; its columns must be those of the fit unless ``reset``."""
    return validate_data(estimator, X, dtype=DTYPES, order="C", reset=reset)  # pyright: ignore


def checked_rows(estimator: BaseEstimator, X: ArrayLike) -> tuple[Tensor, np.dtype]:
    """Check rows for a fitted pair; returns them on the CPU in its precision, and the precision that they had."""
    check_is_fitted(estimator, "vae_")
    checked = checked_matrix(estimator, X, reset=False)
    return torch.tensor(checked, dtype=parameter(cast(Fitted, estimator).vae_).dtype), checked.dtype


def checked_latents(estimator: BaseEstimator, X: ArrayLike) -> tuple[Tensor, np.dtype]:
    """Check latents for the decoder of a fitted pair; returns them with their precision.

    Raises:
        InputError: for latents of another length.
    """
    check_is_fitted(estimator, "vae_")
    checked: NDArray[Any] = check_array(X, dtype=DTYPES, order="C")  # pyright: ignore
    latent_dim = cast(Fitted, estimator).latent_dim
    if checked.shape[1] != latent_dim:
        raise InputError(
            f"X has {checked.shape[1]} columns; expected the latents that the decoder is given, of latent_dim="
            f"{latent_dim} columns: leave out what belongs to other latent sites"
        )
    return torch.tensor(checked), checked.dtype


def require_tolerance(tolerance: float | None) -> None:
    """Raise an InputError for a tolerance that no estimate can have; None stands for a number of draws instead."""
    if tolerance is not None:
        Goal(tolerance, LEVEL, BUDGET)


def split_rows(x: Tensor, fraction: float | None, patience: int | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """Split rows into those to train on, and those held out if any.

    Raises:
        InputError: for a fraction that is none, and for patience without held-out rows.
    """
    if fraction is None:
        if patience is not None:
            raise InputError("patience waits for the bound on held-out rows; pass validation_fraction=0.1 too")
        return x, None
    if not 0.0 < fraction < 1.0:
        raise InputError(f"validation_fraction is {fraction}; expected a number between 0 and 1, or None")
    train, held_out = train_test_split(np.arange(len(x)), test_size=fraction, random_state=seed)
    return x[train], x[held_out]


@dataclass(frozen=True)
class Parts:
    """Builders of the parts of a pair, as :class:`pyrovae.VAEEstimator` takes them.

    Raises:
        InputError: from :meth:`build`, where a part is no builder.
    """

    prior: Callable[[int], Prior]
    likelihood: Callable[[Shape], Likelihood] | None
    guide: Callable[[Shape, int, Build], Guide]
    encoder: Build
    decoder: Build

    def build(self, x: Tensor, latent_dim: int, seed: int) -> VAE:
        """Build a pair that starts where the rows are, and computes in their units and precision."""
        for name, part in vars(self).items():
            if part is not None and not callable(part):
                raise InputError(f"{name} is {part!r}; expected a class, or a functools.partial of one, that builds it")
        units = Units.of(x)
        with seeded(seed):
            vae = VAE(
                tuple(x.shape[1:]),
                latent_dim,
                prior=self.prior,
                likelihood=self.likelihood or partial(RescaledNormal, units),
                guide=self.guide,
                encoder=partial(Rescaled, self.encoder, units),
                decoder=self.decoder,
            ).to(x.dtype)
            _start_at(vae, x)
        return vae


def _start_at(vae: VAE, x: Tensor) -> None:
    if hasattr(vae.model.decoder, "start_output_at"):
        vae.start_at_mean(x.mean(0))
    if (pseudo_inputs := getattr(vae.model.prior, "pseudo_inputs", None)) is not None:
        vae.model.prior.start_at(x[torch.randint(len(x), (len(pseudo_inputs),))])  # pyright: ignore


def parameter(vae: VAE) -> Tensor:
    """A parameter of a pair, for the device and precision of all."""
    return next(vae.parameters())


def latent_means(vae: VAE, x: Tensor, seed: int) -> Tensor:
    """The posterior means of rows; those not in closed form are drawn from a seed for each row."""
    return posterior_means(vae, x, seed=seeds_of_rows(x.numpy(), seed), device=parameter(vae).device)


def decoded_means(vae: VAE, z: Tensor) -> Tensor:
    """The means of p(x | z) for latents, on the CPU.

    Raises:
        InputError: for a likelihood that does not know its mean.
    """
    with torch.no_grad(), evaluating(vae.model):
        means = [mean(vae.model.decode(rows)) for rows in z.to(parameter(vae)).split(MAX_ROWS)]
    known = [rows for rows in means if rows is not None]
    if len(known) < len(means):
        raise InputError(
            f"the likelihood {type(vae.model.likelihood).__name__} does not know its mean at these latents; draw "
            "from vae_.model.decode(z) instead"
        )
    return torch.cat(known).cpu()


def new_rows(vae: VAE, number: int, seed: int) -> Tensor:
    """Draw rows from the model, on the CPU."""
    with torch.no_grad(), evaluating(vae.model), seeded(seed, parameter(vae).device):
        return keeping_its_own(vae.model)(size=number).cpu()


def log_densities(vae: VAE, x: Tensor, num_samples: int, tolerance: float | None, seed: int) -> np.ndarray:
    """Estimates of log p(x) by importance sampling, from a seed for each row, in nats.

    They are of so many draws, or, where a tolerance is given, of as many as each row needs.

    Raises:
        InputError: where rows are outside the support of the likelihood.
    """
    for rows in x.split(MAX_ROWS):
        Pair(vae.model, vae.guide).check(rows.to(parameter(vae)))
    return log_likelihood(
        vae,
        x,
        num_samples,
        num_particles=(),
        tolerance=tolerance,
        level=LEVEL,
        seed=seeds_of_rows(x.numpy(), seed),
        device=parameter(vae).device,
        compile=False,
        progress=False,
        max_rows=MAX_ROWS,
    ).log_p
