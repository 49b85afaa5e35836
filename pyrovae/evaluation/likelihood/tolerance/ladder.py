"""The proposals that a pair has, and the paths that lead to its posterior."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from pyrovae.engine.pair import Pair
from pyrovae.engine.proposal import require_proposal
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.fitting.natural_gradient import STEP_SIZES
from pyrovae.evaluation.fitting.orthogonal_points import number_of_points
from pyrovae.evaluation.likelihood.defensive import DefensiveMixture
from pyrovae.evaluation.likelihood.tolerance.annealed_tries import GRADIENT, PRIOR_CHAINS
from pyrovae.evaluation.likelihood.tolerance.climb import Climb
from pyrovae.evaluation.likelihood.tolerance.goal import Goal
from pyrovae.evaluation.likelihood.tolerance.sampled_weights import PIECE
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.runtime.memory import rows_in_cache, rows_that_fit
from pyrovae.runtime.parameters import Program, keeps_places, same_random_numbers

DEAR = 10
"""How many times the operations of the model a guide's density takes that is left out."""
MOST_DIMENSIONS = 1000
"""Most unconstrained numbers of a datum's latents to which normal proposals, of as many squared, are fitted."""


class Ladder:
    """What of a pair can be a proposal, found on its first data.

    Attributes:
        guide_error: why the guide's draws cannot be weighed; None where they can.
        prior_path: the path from its prior to its posterior, where the prior can be drawn.
        path: the densities of its latents in unconstrained space; None where they have none, as
            where all are discrete, or too many for a fit.
        parts: the guide and the prior, as far as they can be drawn and their densities are known; the prior alone where the
            guide's density takes much longer than the model, as an inverse autoregressive flow's of foreign draws.
        whole: whether all data must go together, as an automatic guide has parameters for each.
        num_outcomes: over how many outcomes of discrete latents the densities of such a path are summed.
        max_rows: the most draws times data of one run of the programs, with these outcomes each.
        has_mixture: whether the guide, mixed with a wider one and the prior, takes the place of such a path.
        discrete_dimensions: how many observed numbers one datum has, where all are discrete; None otherwise.

    Raises:
        InputError: where the data cannot be weighed at all, and where neither the guide nor a path is there.
    """

    def __init__(self, model: Program, guide: Program, data: Columns, device: torch.device, max_rows: int | None) -> None:
        self.whole = keeps_places(guide)
        pair = Pair(model, guide)
        first = next(batches(data, len(data) if self.whole else min(len(data), 8), device=device))
        pair.meet(first)
        weights = pair.weigh(2, first.x, **first.given)
        self.discrete_dimensions, self._discrete_latents = weights.discrete_dimensions, weights.discrete_latents
        self.guide_error: InputError | None = None
        try:
            require_proposal(weights, "log p(x)")
        except InputError as error:
            self.guide_error = error
        paths = _paths(pair, first)
        if len(paths) == 2 and _is_dear(paths["guide"], paths["prior"]):
            del paths["guide"]
        self.parts: tuple[Start, ...] = tuple(paths)
        path = next(iter(paths.values()), None)
        self.path = path if path is not None and path.latents.dimensions <= MOST_DIMENSIONS else None
        self.prior_path = paths.get("prior")
        if self.guide_error is not None and path is None:
            raise self.guide_error
        self.has_mixture = self.path is None and self.guide_error is None and _can_be_mixed(pair, first)
        self.max_rows = max_rows or rows_in_cache(device, first.x[0].numel())
        if max_rows is None and device.type == "cuda":
            self.max_rows = rows_that_fit(device, lambda: pair.weigh(4, first.x, **first.given).total.numel()) // 4
        self.num_outcomes = 1 if path is None else path.latents.outcomes.number
        self.max_rows = max(1, self.max_rows // self.num_outcomes)

    @property
    def guide_suffices(self) -> bool:
        """Whether the guide's draws need none of another proposal, as they would where they may miss discrete values."""
        return not self._discrete_latents or (self.path is None and not self.has_mixture)

    @property
    def dimensions(self) -> int:
        """Count the unconstrained numbers of the latents of a datum."""
        return 0 if self.path is None else self.path.latents.dimensions

    @property
    def shortest_fit(self) -> int:
        """Count the evaluations of a datum's fit that is at its end at once."""
        return GRADIENT * self.num_outcomes * number_of_points(self.dimensions) * (1 + len(STEP_SIZES))

    def climb(self, path: Path, batch: Batch, goal: Goal, spent: NDArray[np.int64]) -> Climb:
        """Make the climb of a batch, along one of the paths, whose data have each cost so many evaluations.

        It counts an evaluation at every outcome of discrete latents as one.
        """
        path = path.with_batch(batch)
        number = path.latents.outcomes.number
        goal, spent = replace(goal, budget=max(1, goal.budget // number)), -(-spent // number)
        return Climb(path, self.parts, goal, spent, self.max_rows, self.whole)

    def compile(self, size: int) -> None:
        """Record and fuse the densities for batches of so many data, and for pieces of as many data as fit."""
        if self.path is not None:
            self.path.compile_for({size, self.data_at_once(PIECE)})

    def data_at_once(self, draws: int) -> int:
        """Compute how many data, with so many draws each, one run of the programs takes."""
        return max(1, self.max_rows // max(PIECE, draws))


def _paths(pair: Pair, batch: Batch) -> dict[Start, Path]:
    """Make the path from the guide and that from the prior, as far as a pair has them."""
    found: dict[Start, Path] = {}
    for start in ("guide", "prior"):
        try:
            path = Path(pair, batch, PRIOR_CHAINS, start)
            _try(path)
        except InputError:  # that part is left out; without any the guide's own draws remain
            continue
        found[start] = path
    return found


def _try(path: Path) -> None:
    """Raise an InputError where the densities are not known at given latents, as of a flow without inverse."""
    with same_random_numbers(*path.batch.tensors):
        path.values(path.sample_initial()[:1])


def _can_be_mixed(pair: Pair, batch: Batch) -> bool:
    """Return whether there is a defensive mixture of the pair."""
    try:
        with same_random_numbers(*batch.tensors):
            DefensiveMixture(pair, batch)
    except InputError:
        return False
    return True


def _is_dear(from_guide: Path, from_prior: Path) -> bool:
    """Return whether the guide's density at given latents takes many times the operations of the model."""
    return _operations(from_guide) - _operations(from_prior) > DEAR * _operations(from_prior)


def _operations(path: Path) -> int:
    with _Counting() as counting, same_random_numbers(*path.batch.tensors):
        path.values(path.sample("prior", 1))
    return counting.calls


class _Counting(TorchFunctionMode):
    """Count the functions of torch that are called."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))
