"""The data that a page is laid out from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pyrovae.evaluation import LatentMap, LogLikelihood
from pyrovae.evaluation.annealing.annealed_likelihood import unmet_warning
from pyrovae.evaluation.estimates.trust import least_trusted_first

Metrics = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Annealed:
    """The estimate by annealed importance sampling for the same data.

    Attributes:
        mean: the mean of log p(x), in nats.
        error: its standard error, in nats.
        temperatures: the number of temperatures.
        chains: the number of chains a datum.
        share_unmet: the share of the data of whose chains fewer than half count, or one alone.
    """

    mean: float
    error: float
    temperatures: int
    chains: int
    share_unmet: float

    @property
    def warning(self) -> str | None:
        """Warning to read beside the line, if there is one."""
        return unmet_warning(self.share_unmet, self.chains)


@dataclass(frozen=True, eq=False)
class Points:
    """The data that are shown one by one, a row each.

    Attributes:
        index: where each stands in the test data, shape ``(N,)``.
        log_p: its log p(x) in nats; NaN where it was not estimated.
        k_hat: its Pareto k-hat; NaN where there is none.
        trusted: whether its log p(x) can be trusted.
        labels: its label, shape ``(N,)``, if the data have labels.
        pictures: the datum as the address of a picture, if it can be drawn.
        latent: its place in the map of latent space, if that can be drawn.
        answers: what its log p(x) was estimated by, in words, if each datum had draws of its own.
    """

    index: np.ndarray
    log_p: np.ndarray
    k_hat: np.ndarray
    trusted: np.ndarray
    labels: np.ndarray | None = None
    pictures: Sequence[str] | None = None
    latent: LatentMap | None = None
    answers: Sequence[str] | None = None

    def worst(self, number: int) -> list[int]:
        """Select the rows that are least to be trusted, of those that were evaluated."""
        known = np.flatnonzero(~np.isnan(self.log_p))
        return known[least_trusted_first(self.k_hat[known], self.trusted[known])][:number].tolist()


@dataclass(frozen=True, eq=False)
class Page:
    """The contents of a page.

    Attributes:
        name: what the run is called.
        facts: what it is made of, by name.
        summary: its numbers, by the names of ``summary.json``.
        estimate: of log p(x), a number a datum.
        points: data, one by one.
        metrics: a mapping an epoch, from ``metrics.jsonl``.
        reconstructions: pairs of pictures, a datum and what the model makes of its latent.
        samples: pictures that the model draws.
        annealed: a second opinion, if there is one.
        left_out: parts of the page that cannot be made, each with the reason.
        notes: a sentence more about a part.
        config: the resolved configuration.
        provenance: what the page was made with, by name.
    """

    name: str
    facts: Mapping[str, str]
    summary: Mapping[str, Any]
    estimate: LogLikelihood
    points: Points
    metrics: Metrics
    reconstructions: Sequence[tuple[str, str]] = ()
    samples: Sequence[str] = ()
    annealed: Annealed | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
