"""The best answers so far, a row a datum."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pyrovae.errors import InputError
from pyrovae.evaluation.estimates.effort import PROPOSALS, Effort
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.netcdf import COLUMNS
from pyrovae.evaluation.likelihood.tolerance.goal import Goal

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]
NAME = f"U{max(map(len, PROPOSALS))}"
"""Type of the names of proposals in an array."""


@dataclass
class Answers:
    """The answers for N data, and what they cost.

    Attributes:
        columns: the numbers of a :class:`~pyrovae.evaluation.estimates.estimate.LogLikelihood` by name, each ``(N,)``.
        proposal: what drew each.
        draws: how many draws, or chains, each is made of.
        evaluations: how often the model was evaluated for each, in all; a gradient counts as three.
        trusted: whether the diagnostics of each hold.
        met: whether each reached the goal too.
    """

    columns: dict[str, Array]
    proposal: NDArray[np.str_]
    draws: NDArray[np.int64]
    evaluations: NDArray[np.int64]
    trusted: Rows
    met: Rows

    @classmethod
    def of(
        cls, estimate: LogLikelihood, proposal: str, evaluations: int | NDArray[np.int64], trusted: Rows, reached: Rows
    ) -> Self:
        """Make the answers of an estimate whose data have cost so many evaluations, together or each, ``(N,)``."""
        number = len(estimate.log_p)
        return cls(
            {name: getattr(estimate, name) for name in COLUMNS},
            np.full(number, proposal, dtype=NAME),
            np.full(number, estimate.num_samples),
            np.full(number, evaluations),
            trusted,
            trusted & reached,
        )

    @classmethod
    def none(cls, evaluations: NDArray[np.int64]) -> Self:
        """Make the answers of data that have none yet, and have cost so much each, shape ``(N,)``."""
        number = len(evaluations)
        columns = {name: np.full(number, np.nan) for name in COLUMNS}
        no = np.zeros(number, dtype=bool)
        return cls(columns, np.full(number, "", dtype=NAME), np.zeros(number, dtype=np.int64), evaluations, no, no.copy())

    @classmethod
    def joined(cls, parts: Sequence["Answers"]) -> Self:
        """Join the answers of several parts of the data."""
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS}
        others = (np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)[1:])
        return cls(columns, *others)

    def take(self, rows: NDArray[np.int64], found: "Answers") -> None:
        """Take other answers for some data, where they are no worse, and count what they cost."""
        self.evaluations[rows] += found.evaluations
        old, new = self.columns["log_p"][rows], found.columns["log_p"]
        says_more = np.isfinite(new) | (np.isneginf(new) & ~np.isfinite(old))
        better = found.met | (found.trusted & ~self.met[rows]) | (~self.trusted[rows] & says_more)
        chosen = rows[better]
        for name, column in self.columns.items():
            column[chosen] = found.columns[name][better]
        for name in ("proposal", "draws", "trusted", "met"):
            getattr(self, name)[chosen] = getattr(found, name)[better]

    def doubt(self, rows: NDArray[np.int64], found: "Answers") -> None:
        """Doubt the answers for some data where ``found`` does not trust them, and count what that cost."""
        self.evaluations[rows] += found.evaluations
        for name in ("trusted", "met"):
            getattr(self, name)[rows[~found.trusted]] = False

    def require_numbers(self) -> None:
        """Raise an InputError for data at which the model's density is never a number."""
        missing = np.isnan(self.columns["log_p"])
        if missing.any():
            raise InputError(
                f"the log density of the model is NaN at every draw for {missing.sum()} of {len(missing)} data "
                f"(the first is datum {missing.argmax()}); look at these data, and at the parameters of the model's "
                "distributions there"
            )

    def estimate(self, goal: Goal, **others: Any) -> LogLikelihood:
        """Make the result of these answers, and of what else a ``LogLikelihood`` says."""
        fields = self.proposal, self.draws, self.evaluations, self.trusted, self.met
        effort = Effort(goal.tolerance, goal.level, *fields)
        columns: dict[str, Any] = self.columns
        return LogLikelihood(**columns, **others, effort=effort)
