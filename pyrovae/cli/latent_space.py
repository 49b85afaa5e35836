"""Figures and numbers of the latent space of a trained pair."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pyrovae import plots
from pyrovae.cli.drawing import Drawing
from pyrovae.errors import InputError
from pyrovae.evaluation import (
    KLDecomposition,
    RateDistortion,
    aggregate_posterior,
    interpolate,
    kl_decomposition,
    rate_distortion,
    traverse,
)
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.vae import VAE

SPLIT = 1000
"""Largest number of data whose average KL is decomposed; the cost grows with its square."""
DRAWS = 5
"""Draws per datum for the decomposition, and for rate and distortion."""
MOVED = 8
"""Largest number of dimensions that are traversed."""
WAYS = 4
"""Largest number of pairs of data between which there is an interpolation."""


class LatentSpace:
    """The latent space of a pair: its rate, KL and figures, and why any of them is left out.

    Attributes:
        kl: the average KL of the first test data, split; None where that cannot be done.
        plane: the rate and the distortion of all of them; None likewise.
        drawings: figures by name.
        left_out: reasons by name for what could not be computed.
    """

    def __init__(self, vae: VAE, tested: Columns, pictures: bool, device: str) -> None:
        self.drawings: dict[str, Drawing] = {}
        self.left_out: dict[str, str] = {}
        self._vae, self._device = vae, device
        self._some = next(batches(tested, SPLIT, device=device))
        self.kl: KLDecomposition | None = self._tried("average_kl", self._split)
        self.plane: RateDistortion | None = self._tried("rate_distortion", lambda: self._plane(tested))
        self._add("kl_per_dimension", self._per_dimension)
        self._add("aggregate_posterior", self._aggregate)
        if pictures:
            self._add("traversals", self._traversals)
            self._add("interpolations", self._interpolations)

    def _tried(self, name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except InputError as error:
            self.left_out[name] = str(error)
            return None

    def _add(self, name: str, prepared: Callable[[], Drawing]) -> None:
        if (drawing := self._tried(name, prepared)) is not None:
            self.drawings[name] = drawing

    def _split(self) -> KLDecomposition:
        return kl_decomposition((self._vae.model, self._vae.guide), self._some.plain(), DRAWS, device=self._device)

    def _plane(self, tested: Columns) -> RateDistortion:
        return rate_distortion({"run": self._vae}, tested.plain(), DRAWS, device=self._device)

    def _per_dimension(self) -> Drawing:
        if self.kl is None or self.kl.per_dimension is None:
            raise InputError("there is no KL for each dimension" if self.kl is None else str(self.kl.no_dimensions))
        return partial(plots.kl_per_dimension, self.kl.per_dimension)

    def _aggregate(self) -> Drawing:
        found = aggregate_posterior((self._vae.model, self._vae.guide), self._some.plain(), device=self._device)
        if found.posterior.shape[1] < 2 or len(found.posterior) < 3:
            raise InputError("it needs three data and two latent dimensions")
        return partial(plots.aggregate_posterior, found.prior, found.posterior)

    def _traversals(self) -> Drawing:
        of_most = None
        if self.kl is not None and self.kl.per_dimension is not None:
            of_most = np.argsort(-self.kl.per_dimension)[:MOVED].tolist()
        found = traverse((self._vae.model, self._vae.guide), self._rows(0, 1).plain(), dimensions=of_most)
        return partial(plots.traversals, found)

    def _interpolations(self) -> Drawing:
        number = min(WAYS, len(self._some) // 2)
        if number == 0:
            raise InputError("it needs two data")
        ends = (self._rows(0, number), self._rows(number, 2 * number))
        start, end = ends[0], Columns(ends[1].x, ends[0].given)
        found = interpolate((self._vae.model, self._vae.guide), start.plain(), end.plain(), course="great_circle")
        return partial(plots.interpolations, found)

    def _rows(self, start: int, stop: int) -> Batch:
        return self._some.rows(slice(start, stop))
