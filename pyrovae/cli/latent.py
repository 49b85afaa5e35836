"""What evaluation says and draws of the latent space of a trained pair."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from pyrovae import plots
from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.evaluation import (
    KLDecomposition,
    RateDistortion,
    active_units,
    aggregate_posterior,
    interpolate,
    kl_decomposition,
    linear_probe,
    nearest_neighbour_accuracy,
    posterior_means,
    rate_distortion,
    traverse,
)
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.vae import VAE

Drawing = Callable[[Axes], Axes]
voters = 5
"""Neighbours that vote on a datum's label."""
split = 1000
"""Data whose average KL is split, at the most: the cost is its square."""
draws = 5
"""Draws a datum for that, and for rate and distortion."""
moved = 8
"""Dimensions that are traversed, at the most."""
ways = 4
"""Pairs of data between which there is an interpolation, at the most."""


def latent_summary(vae: VAE, data: Data, means: Tensor, space: "LatentSpace", device: str) -> dict[str, Any]:
    """How many dimensions the data move, what ELBO and average KL consist of, and whether the means tell the labels."""
    number = active_units(means).number if len(means) > 1 else None
    summary: dict[str, Any] = {"active units": number, "latent dimensions": means.shape[1]}
    if (plane := space.plane) is not None:
        summary |= {"rate": plane.rate("run")[0], "distortion": plane.distortion("run")[0]}
    if (kl := space.kl) is not None:
        parts = {"average KL": kl.average_kl, "mutual information": kl.mutual_information, "marginal KL": kl.marginal_kl}
        summary |= {name: value for name, (value, _) in parts.items()} | {"data of the KL": kl.kl.shape[1]}
    if data.test.labels is None or data.train.labels is None or len(data.train) < voters:
        return summary
    train_means = posterior_means(vae, data.train.fixed_draw(), device=device)
    labelled = train_means, data.train.labels, means, data.test.labels
    summary["kNN accuracy"] = nearest_neighbour_accuracy(*labelled, voters)
    if len(np.unique(data.train.labels)) > 1:
        summary["linear probe"] = linear_probe(*labelled)
    return summary


def latent_lines(summary: dict[str, Any]) -> str:
    """The same to read in a terminal."""
    number = "unknown (of one datum)" if summary["active units"] is None else summary["active units"]
    lines = [f"active units        {number} of {summary['latent dimensions']}"]
    if "rate" in summary:
        rate, distortion = summary["rate"], summary["distortion"]
        lines.append(f"rate                {rate:.3f}  (distortion {distortion:.3f}; their sum is -ELBO)")
    if "average KL" in summary:
        kl, information, rest = (summary[name] for name in ("average KL", "mutual information", "marginal KL"))
        ceiling = f"(of at most {np.log(summary['data of the KL']):.2f})"
        lines.append(
            f"average KL          {kl:.3f}  = mutual information {information:.3f} {ceiling} + marginal KL {rest:.3f}"
        )
    if "kNN accuracy" in summary:
        lines.append(f"kNN accuracy        {summary['kNN accuracy']:.3f}  (5 nearest latent means, against the labels)")
    if "linear probe" in summary:
        lines.append(f"linear probe        {summary['linear probe']:.3f}  (logistic regression on the latent means)")
    return "\n".join(lines)


class LatentSpace:
    """What can be computed and drawn of it, and why the rest cannot.

    Attributes:
        kl: the average KL of the first test data, split; None where that cannot be done.
        plane: the rate and the distortion of all of them; None likewise.
        drawings: figures by name.
        left_out: what is not there, each with the reason.
    """

    def __init__(self, vae: VAE, tested: Columns, pictures: bool, device: str) -> None:
        self.drawings: dict[str, Drawing] = {}
        self.left_out: dict[str, str] = {}
        self._vae, self._device = vae, device
        self._some = next(batches(tested, split, device=device))
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
        return kl_decomposition((self._vae.model, self._vae.guide), self._some.plain(), draws, device=self._device)

    def _plane(self, tested: Columns) -> RateDistortion:
        return rate_distortion({"run": self._vae}, tested.plain(), draws, device=self._device)

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
            of_most = np.argsort(-self.kl.per_dimension)[:moved].tolist()
        found = traverse((self._vae.model, self._vae.guide), self._rows(0, 1).plain(), dimensions=of_most)
        return partial(plots.traversals, found)

    def _interpolations(self) -> Drawing:
        number = min(ways, len(self._some) // 2)
        if number == 0:
            raise InputError("it needs two data")
        ends = (self._rows(0, number), self._rows(number, 2 * number))
        start, end = ends[0], Columns(ends[1].x, ends[0].given)
        found = interpolate((self._vae.model, self._vae.guide), start.plain(), end.plain(), course="great_circle")
        return partial(plots.interpolations, found)

    def _rows(self, start: int, stop: int) -> Batch:
        return self._some.rows(slice(start, stop))
