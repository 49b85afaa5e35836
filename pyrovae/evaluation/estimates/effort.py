"""What estimates to a tolerance took, a number a datum."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates.k_hat_warning import TOLERATED_SHARE

PROPOSALS = ("guide", "mixture", "fitted", "annealed", "annealed from prior")
"""What draws can come from, in the order in which a datum climbs."""


class Rung(NamedTuple):
    """What one proposal answered.

    Attributes:
        proposal: its name, of :data:`PROPOSALS`.
        data: how many data it answered.
        share_met: the share of these that met the tolerance.
        draws: the median of their draws, or chains.
        evaluations: the median of the evaluations that they took in all.
    """

    proposal: str
    data: int
    share_met: float
    draws: float
    evaluations: float


@dataclass(frozen=True, eq=False)
class Effort:
    """What the estimates of N data to a tolerance took.

    Attributes:
        tolerance: the distance from log p(x) to an end of its interval that was asked for, in nats.
        level: the level of the interval.
        proposal: what each estimate's draws come from, shape ``(N,)``: the ``guide``; the ``mixture`` of the guide, a wider
            one and the prior; a ``fitted`` normal distribution mixed with the guide and the prior; ``annealed`` chains
            that begin with one; or chains that were ``annealed from prior``.
        draws: how many draws, or chains, each estimate is made of, shape ``(N,)``.
        evaluations: how often the model was evaluated for each datum in all, shape ``(N,)``; a gradient counts as three,
            and each outcome of discrete latents that are summed over as one.
        trusted: whether the diagnostics of each estimate hold, shape ``(N,)``: the k-hat, or for chains that half of them
            count.
        met: whether, beside that, the interval is within the tolerance, shape ``(N,)``.
    """

    tolerance: float
    level: float
    proposal: NDArray[np.str_]
    draws: NDArray[np.int64]
    evaluations: NDArray[np.int64]
    trusted: NDArray[np.bool_]
    met: NDArray[np.bool_]

    @property
    def share_met(self) -> float:
        """The share of the data that met the tolerance."""
        return float(self.met.mean())

    def rungs(self) -> list[Rung]:
        """List what each proposal answered, in the order in which data climb."""
        chosen = {name: self.proposal == name for name in PROPOSALS}
        return [self._rung(name, rows) for name, rows in chosen.items() if rows.any()]

    def _rung(self, name: str, rows: NDArray[np.bool_]) -> Rung:
        cost = (float(np.median(values[rows])) for values in (self.draws, self.evaluations))
        return Rung(name, int(rows.sum()), float(self.met[rows].mean()), *cost)

    def lines(self) -> list[str]:
        """Format the rows of a table: each proposal with its data, the share that met the tolerance, and its median cost."""
        header = f"  {'answered by':<22}{'data':>12}{'met':>12}{'draws':>12}{'evaluations':>14}"
        return [header] + [
            f"  {rung.proposal:<22}{rung.data:>12,}{rung.share_met:>12.1%}{rung.draws:>12,.0f}{rung.evaluations:>14,.0f}"
            for rung in self.rungs()
        ]

    @property
    def warning(self) -> str | None:
        """Warning to read before the numbers, where more than one datum in twenty did not meet the tolerance; else None."""
        unmet, untrusted = (float((~rows).mean()) for rows in (self.met, self.trusted))
        if unmet <= TOLERATED_SHARE:
            return None
        said = f"the tolerance of {self.tolerance:g} nats is not met for {unmet:.1%} of the data"
        if untrusted:
            said += f", and the diagnostics do not hold for {untrusted:.1%}, whose log p(x) is probably too low"
        return f"{said}; pass a larger budget, or a larger tolerance"
