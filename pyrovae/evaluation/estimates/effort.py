"""What estimates to a tolerance took, a number a datum."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates.k_hat_warning import TOLERATED_SHARE

PROPOSALS = ("guide", "mixture", "fitted", "annealed", "annealed from prior")
"""What draws can come from, in the order in which a datum climbs."""


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
        evaluations: how often the model was evaluated for each datum in all, shape ``(N,)``; a gradient counts as three.
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

    def lines(self) -> list[str]:
        """Format the rows of a table: each proposal with its data, their share that met, and medians of their cost."""
        rows = [f"  {'answered by':<22}{'data':>12}{'met':>12}{'draws':>12}{'evaluations':>14}"]
        for name in PROPOSALS:
            if (chosen := self.proposal == name).any():
                draws, evaluations = (f"{np.median(values[chosen]):,.0f}" for values in (self.draws, self.evaluations))
                rows.append(f"  {name:<22}{chosen.sum():>12,}{self.met[chosen].mean():>12.1%}{draws:>12}{evaluations:>14}")
        return rows

    @property
    def warning(self) -> str | None:
        """Warning to read before the numbers, where more than one datum in twenty did not meet the tolerance; else None."""
        if 1.0 - self.share_met <= TOLERATED_SHARE:
            return None
        untrusted = float((~self.trusted).mean())
        return (
            f"the tolerance of {self.tolerance:g} nats is not met for {1.0 - self.share_met:.1%} of the data, and the "
            f"diagnostics do not hold for {untrusted:.1%}, whose log p(x) is probably too low; pass a larger budget, or a "
            "larger tolerance"
        )
