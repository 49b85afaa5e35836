"""Annealed importance sampling of a run, a second estimate of its log p(x), between bounds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pyrovae.cli.records import is_number, read_numbers
from pyrovae.errors import InputError
from pyrovae.evaluation import AnnealedLikelihood, Bidirectional, annealed_importance_sampling, bidirectional
from pyrovae.report import Annealed
from pyrovae.runtime.batches import Columns
from pyrovae.vae import VAE

FILES = ("annealed.json", "annealed.npz")
"""Names of the files that hold its results."""
SIMULATED = 100
"""Largest number of data that the model draws to find the gap between the bounds."""


def anneal(
    vae: VAE, tested: Columns, *, num_chains: int, temperatures: int, **settings: Any
) -> tuple[AnnealedLikelihood, Bidirectional]:
    """Anneal chains for all data that were evaluated, and for some that the model draws, both with these settings."""
    found = annealed_importance_sampling(vae, tested.plain(), num_chains, temperatures, **settings)
    some = tested.rows(slice(SIMULATED)) if len(tested) > SIMULATED else tested
    bounds = bidirectional(vae, some.plain(), num_chains, temperatures, **settings)
    return found, bounds


def keep(found: AnnealedLikelihood, bounds: Bidirectional, run: Path) -> None:
    """Write the results into the run folder."""
    (run / FILES[0]).write_text(json.dumps(_summary(found, bounds), indent=2) + "\n")
    np.savez(run / FILES[1], log_weights=found.log_weights, forward=bounds.forward, reverse=bounds.reverse)


def read(run: Path) -> Annealed | None:
    """Read the summary that :func:`keep` wrote, if there is one.

    Raises:
        InputError: where it cannot be read, or lacks a number.
    """
    path = run / FILES[0]
    if not path.is_file():
        return None
    found, names = read_numbers(path), Annealed.__annotations__
    if missing := [name for name in names if not is_number(found.get(name))]:
        raise InputError(f"{path} has no number {missing[0]!r}; expected {', '.join(names)}: make it again, or remove it")
    return Annealed(**{name: found[name] for name in names})


def forget(run: Path) -> None:
    """Remove the files of an earlier evaluation, which may have been of other data."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)


def _summary(found: AnnealedLikelihood, bounds: Bidirectional) -> dict[str, float | str]:
    gap, its_error = bounds.gap
    return {
        "mean": found.mean,
        "error": found.monte_carlo_error,
        "standard error over data": found.data_error,
        "chains": found.num_chains,
        "temperatures": found.temperatures,
        "start": found.start,
        "share_unmet": found.share_unmet,
        "gap": gap,
        "error of the gap": its_error,
    }
