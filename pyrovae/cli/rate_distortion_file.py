"""The rate and the distortion of each datum of a run, which ``pyrovae evaluate`` leaves for ``pyrovae compare``."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pyrovae.errors import InputError
from pyrovae.evaluation import RateDistortion
from pyrovae.runs.results import check_results
from pyrovae.untrusted.npz import opened_npz

FILE = "rate_distortion.npz"
"""Name of the file that holds them."""


def keep(found: RateDistortion | None, run: Path) -> None:
    """Write the rate and distortion of the only pair into the run folder, in place of an earlier file."""
    if found is None:
        (run / FILE).unlink(missing_ok=True)
        return
    (name,) = found.names
    np.savez(run / FILE, rate=found.rates[name], distortion=found.distortions[name], num_samples=found.num_samples)


def read(runs: Mapping[str, Path], number: int) -> RateDistortion:
    """Read the rates and distortions of several runs, which were evaluated on the same ``number`` of data.

    Raises:
        InputError: where a run has none, or what cannot be read, and where they are of different numbers of draws.
    """
    for run in runs.values():
        check_results(run, FILE)
    found = {name: read_plane(run / FILE, number) for name, run in runs.items()}
    draws = {name: part.num_samples for name, part in found.items()}
    if len({*draws.values()}) > 1:
        raise InputError(
            f"rate and distortion are of {', '.join(f'{draws[name]} draws in {run}' for name, run in runs.items())}; make "
            "them again: pyrovae evaluate RUN"
        )
    rates, distortions = ({name: getattr(part, kind) for name, part in found.items()} for kind in ("rate", "distortion"))
    return RateDistortion(rates, distortions, next(iter(draws.values())))


class Numbers(NamedTuple):
    """Rate and distortion of each datum, and what they were computed with."""

    rate: np.ndarray
    distortion: np.ndarray
    num_samples: int


def read_plane(path: Path, number: int) -> Numbers:
    """Read the rates and distortions of ``number`` data.

    Raises:
        InputError: where they are not there, or are no numbers.
    """
    expected = {"rate": ((number,), "f"), "distortion": ((number,), "f"), "num_samples": ((), "i")}
    try:
        with opened_npz(path) as file:
            for name, (shape, kind) in expected.items():
                claim = file.claims[name]
                if claim.shape != shape or claim.dtype.kind != kind:
                    raise ValueError(f"{name} is of {claim.dtype} and shape {claim.shape}; expected shape {shape}")
            rate, distortion, draws = (file.read(name) for name in expected)
        if not (np.isfinite(rate).all() and np.isfinite(distortion).all()):
            raise ValueError("it holds NaN or infinity")
    except Exception as error:  # damage ends in errors of a dozen types, from zlib's to the tokeniser's
        raise InputError(f"{path} cannot be read ({error}); make it again: pyrovae evaluate {path.parent}") from error
    return Numbers(rate, distortion, int(draws))
