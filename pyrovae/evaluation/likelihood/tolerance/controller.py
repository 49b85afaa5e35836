"""The controller of log p(x) to a tolerance: each datum climbs through proposals until its interval is narrow enough.

What chose a proposal, and the number of its draws, is thrown away, so that these do not decide which of their own weights
count.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.fitting.orthogonal_points import number_of_points
from pyrovae.evaluation.likelihood.importance_sampling import ImportanceSampling
from pyrovae.evaluation.likelihood.tolerance.annealed_tries import CHAINS, PRIOR_CHAINS
from pyrovae.evaluation.likelihood.tolerance.answers import Answers
from pyrovae.evaluation.likelihood.tolerance.climb import Climb
from pyrovae.evaluation.likelihood.tolerance.goal import Goal
from pyrovae.evaluation.likelihood.tolerance.ladder import Ladder
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.precision import computing_in
from pyrovae.runtime.progress import progress_bar
from pyrovae.runtime.seeds import Seeds, set_seed
from pyrovae.runtime.sharding import in_shards

Chosen = NDArray[np.bool_]
Rung = Callable[[Climb], Answers]
Take = Callable[[NDArray[np.int64], Answers], None]
FIRST_LOOK, MOST_DRAWS = 1_000, 16_000
"""Draws of the guide: at first, of which the bounds are made too; and at most, beyond which fitted proposals cost less."""
EXPECTED = 5_000
"""Evaluations of the model for a datum that climbs, about."""
OF_MIXTURE = 5_000, 20_000, 80_000
"""Draws of the defensive mixture: at first, and where the k-hat is too large, as it is of tails that hold two values."""
LARGEST_K_HAT = 0.3
"""Largest k-hat at which the guide's draws are taken: up to it, weights have a variance."""


class Controller:
    """The climb of all data.

    Args:
        model: the model.
        guide: its proposal.
        data: the data.
        goal: what is asked for.
        settings: how the programs are run.
        seeds: the seeds of the noise.

    Raises:
        InputError: where neither the guide nor a fitted proposal can weigh the pair.
    """

    def __init__(
        self, model: Program, guide: Program, data: Columns, goal: Goal, settings: ImportanceSampling, seeds: Seeds
    ) -> None:
        self._programs, self._data, self._goal, self._seeds = (model, guide), data, goal, seeds
        self._settings = replace(settings, number=min(FIRST_LOOK, int(goal.budget)), progress=False)
        self._ladder = Ladder(model, guide, data, settings.device, settings.max_rows)
        self._answers = Answers.none(np.zeros(len(data), dtype=np.int64))
        self._bar = progress_bar(total=len(data), progress=settings.progress)

    def __call__(self, particles: Sequence[int]) -> LogLikelihood:
        """Climb until every datum has reached the goal, or spent its budget.

        Raises:
            InputError: for a datum at which the model's density is never a number.
        """
        with self._bar:
            of_guide = self._first_look([count for count in particles if count <= self._settings.number])
            for time, (rung, chosen) in enumerate(self._rungs(), 2):
                if (left := chosen(self._answers)).any():
                    rung(left, time)
        self._answers.require_numbers()
        said = {"num_samples": self._settings.number, "discrete_dimensions": self._ladder.discrete_dimensions}
        return self._answers.estimate(self._goal, **said | of_guide)

    def _rungs(self) -> Iterator[tuple[Callable[[Chosen, int], None], Callable[[Answers], Chosen]]]:
        """Yield each rung with the data that take it."""
        ladder, take = self._ladder, self._answers.take
        if ladder.guide_error is None and ladder.guide_suffices:
            yield self._more_of_the_guide, _unmet
        if ladder.path is not None:
            climb = partial(self._climb, ladder.path)
            yield partial(climb, CHAINS, Climb.look_for_modes, self._answers.doubt), _met
            yield partial(climb, number_of_points(ladder.dimensions), Climb.sample, take), self._worth_a_fit
            yield partial(climb, CHAINS, Climb.anneal, take), self._worth_a_fit
        elif ladder.has_mixture:
            yield self._mixture, _unmet
        if ladder.prior_path is not None:
            yield partial(self._climb, ladder.prior_path, PRIOR_CHAINS, Climb.anneal_from_prior, take), _untrusted

    def _first_look(self, particles: Sequence[int]) -> dict[str, Any]:
        """Draw from the guide, and return its bounds, and how far networks are rounded."""
        if self._ladder.guide_error is not None:
            return {"bounds": {}}
        found = self._settings.estimate(*self._programs, self._data, particles, self._seeds)
        everything = np.ones(len(self._data), dtype=bool)
        self._take(everything, self._judged(found, "guide"))
        return {"bounds": found.bounds, "rounding": found.rounding}

    def _worth_a_fit(self, answers: Answers) -> Chosen:
        """Return which data have not reached the goal, and can pay for the shortest fit."""
        return ~answers.met & (answers.evaluations + self._ladder.shortest_fit <= self._goal.budget)

    def _more_of_the_guide(self, left: Chosen, time: int) -> None:
        """Draw more from the guide where its weights have a variance, and that costs less than a fitted proposal."""
        promising = left & (self._answers.columns["k_hat"] <= LARGEST_K_HAT)
        self._draw_needed(promising, MOST_DRAWS, time, "guide")

    def _mixture(self, left: Chosen, time: int) -> None:
        """Draw from the defensive mixture until that is trusted, and then as often as these draws say."""
        chosen = left
        for number in OF_MIXTURE:
            self._draw(chosen, number, time, "mixture")
            chosen = left & ~self._answers.trusted
        self._draw_needed(left & ~self._answers.met & self._answers.trusted, self._goal.budget // 2, time, "mixture")

    def _draw_needed(self, chosen: Chosen, most: int, time: int, proposal: str) -> None:
        """Draw for the chosen data as often as each needs, in steps of two; those that need more than ``most`` have none."""
        needed = self._goal.draws(self._answers.columns["standard_error"], self._answers.draws)
        steps = np.ceil(np.log2(needed.clip(min=2 * FIRST_LOOK) / FIRST_LOOK))
        for step in np.unique(steps[chosen]):
            if (number := FIRST_LOOK * 2**step) <= most:
                self._draw(chosen & (steps == step), int(number), time, proposal)

    def _draw(self, chosen: Chosen, number: int, time: int, proposal: str) -> None:
        """Draw for those of the chosen data that can pay for it."""
        chosen = chosen & (self._answers.evaluations + number <= self._goal.budget)
        if not chosen.any():
            return
        settings, mixed = replace(self._settings, number=number), proposal == "mixture"
        seeds = self._seeds.others(chosen, time * 2**32 + number)
        found = settings.estimate(*self._programs, self._data, (), seeds, defensive=mixed, chosen=chosen)
        if mixed:
            found = replace(found, defensive=np.ones(len(found.log_p), dtype=bool))
        self._take(chosen, self._judged(found, proposal))

    def _judged(self, found: LogLikelihood, proposal: str) -> Answers:
        """Make answers; those of a guide that draws discrete latents are not trusted where others can be had."""
        certain = (found.k_hat <= LARGEST_K_HAT) | np.isnan(found.k_hat)
        trusted = found.trusted & ((proposal == "mixture") | (certain & self._ladder.guide_suffices))
        reached = self._goal.reached(found.log_p, found.standard_error, found.num_samples)
        return Answers.of(found, proposal, found.num_samples, trusted, reached)

    def _climb(self, path: Path, draws: int, rung: Rung, take: Take, left: Chosen, time: int) -> None:
        """Take a rung along a path, with batches of the data that are left, so many draws of which go together."""
        ladder = self._ladder
        left = left | ladder.whole
        order, seeds = left.nonzero()[0], self._seeds.others(left, time)
        size = len(self._data) if ladder.whole else 1 if seeds.alone else ladder.data_at_once(draws)
        if self._settings.is_worthwhile(len(order), EXPECTED):
            ladder.compile(size)

        def work(index: int, batch: Batch) -> Answers:
            """Take the rung with one batch, with noise of its own."""
            set_seed(seeds.batch_seed(index), self._settings.device)
            spent = self._answers.evaluations[order[index * size :][: len(batch)]]
            with computing_in(self._settings.precision):
                found = self._taken(path, rung, batch, spent)
            self._bar.update(int(found.met.sum()))
            return found

        batched = batches(self._data, size, order=torch.from_numpy(order), device=self._settings.device)
        take(order, Answers.joined(in_shards(batched, work)))

    def _taken(self, path: Path, rung: Rung, batch: Batch, spent: NDArray[np.int64]) -> Answers:
        """Take a rung with a batch; where that is refused or fails, with its halves, down to single data."""
        try:
            climb = self._ladder.climb(path, batch, self._goal, spent)
            found = rung(climb)
        except (InputError, torch.linalg.LinAlgError):  # pyright: ignore[reportPrivateImportUsage]
            if len(batch) == 1 or self._ladder.whole:
                return Answers.none(np.zeros_like(spent))
            half = len(batch) // 2
            halves = (slice(None, half), slice(half, None))
            return Answers.joined([self._taken(path, rung, batch.rows(part), spent[part]) for part in halves])
        found.evaluations *= climb.path.latents.outcomes.number
        return found

    def _take(self, chosen: Chosen, found: Answers) -> None:
        self._answers.take(chosen.nonzero()[0], found)
        self._bar.update(int(found.met.sum()))


def _met(answers: Answers) -> Chosen:
    return answers.met


def _unmet(answers: Answers) -> Chosen:
    return ~answers.met


def _untrusted(answers: Answers) -> Chosen:
    return ~answers.trusted
