"""The rungs of one batch above its guide: draws of fitted proposals, and annealed chains that begin with them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrovae.evaluation.annealing.annealed_likelihood import COUNTING_CHAINS
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.fitting.natural_gradient import Fit, fit_normals
from pyrovae.evaluation.fitting.normals import Normals
from pyrovae.evaluation.likelihood.tolerance import annealed_tries
from pyrovae.evaluation.likelihood.tolerance.answers import Answers
from pyrovae.evaluation.likelihood.tolerance.goal import Goal
from pyrovae.evaluation.likelihood.tolerance.sampled_weights import PIECE, sampled_weights

Places = NDArray[np.int64]
START_DRAWS = 64
"""Draws whose moments a fit starts from."""
FIRST_LOOK, SECOND_LOOK, MOST_DRAWS = 500, 5_000, 50_000
"""Draws of a fitted proposal: at first; at least, where the k-hat was too large before; and at most."""
WIDENINGS = (0.6, 0.6, 1.4)
"""By how much the standard deviations are larger than fitted, as a multiple of :math:`1 / \\sqrt D`, after so many looks with
too large a k-hat: a normal distribution that is fitted by its ELBO is narrower than the posterior."""
TEMPERATURES = 32
"""Temperatures of the first annealed chains."""


@dataclass
class Climb:
    """The climb of one batch.

    Attributes:
        path: the densities of its data.
        parts: what is mixed with fitted proposals.
        goal: what is asked for.
        spent: how often the model was evaluated for each of the data before, shape ``(B,)``.
        max_rows: the most draws of one pass of the programs.
        whole: whether the data must go together.
    """

    path: Path
    parts: tuple[Start, ...]
    goal: Goal
    spent: Places
    max_rows: int
    whole: bool
    answers: Answers = field(init=False)

    def fit(self) -> Normals:
        """Fit a normal proposal to each datum, from the moments of draws of the guide."""
        start = Normals.from_draws(self.path.sample("guide", START_DRAWS))

        def gradient(u: Tensor) -> tuple[Tensor, Tensor]:
            return self.path.joint(u, start.loc.expand_as(u))

        fit: Fit = fit_normals(gradient, start)
        self.answers = Answers.none(len(self.spent), annealed_tries.GRADIENT * fit.evaluations)
        return fit.normals

    def sample(self) -> Answers:
        """Draw from the fitted mixtures, anew and more each time, while the k-hats allow it."""
        normals = self.fit()
        number, failures = np.full(len(self.spent), FIRST_LOOK), np.zeros(len(self.spent), dtype=int)
        while (left := (number <= MOST_DRAWS) & (failures < len(WIDENINGS)) & self._left(number)).any():
            self._look(normals, np.where(left, number, 0), failures)
            known = self.answers
            failures += left & ~known.trusted
            needed = np.maximum(2 * number, self.goal.draws(known.columns["standard_error"], known.draws))
            needed = np.where(known.trusted, needed, SECOND_LOOK).clip(max=2 * MOST_DRAWS)
            number = (np.ceil(needed / PIECE) * PIECE).astype(np.int64)
        return self.answers

    def anneal(self) -> Answers:
        """Anneal from fitted proposals, anew and at more temperatures each time."""
        normals, temperatures = self.fit(), TEMPERATURES
        while (left := self._left(cost := annealed_tries.cost_from_normals(temperatures))).any():
            places = np.arange(len(left)) if self.whole else np.flatnonzero(left)
            index = torch.from_numpy(places).to(normals.loc.device)
            path = self.path.with_batch(self.path.batch.rows(index))
            estimate = annealed_tries.from_normals(path, normals.rows(index), temperatures)
            trusted = estimate.effective_sample_size >= COUNTING_CHAINS * estimate.num_samples
            self._take(places, estimate, "annealed", cost, trusted)
            needed = self.goal.draws(estimate.standard_error, np.full(len(places), estimate.num_samples))
            factor = np.where(trusted, needed / estimate.num_samples, 4.0).max()
            temperatures = int(temperatures * min(max(factor, 1.5), 8.0))
        return self.answers

    def _left(self, cost: Places | int) -> NDArray[np.bool_]:
        """Return which data have not reached the goal, and can pay for another try."""
        return ~self.answers.met & (self.spent + self.answers.evaluations + cost <= self.goal.budget)

    def _look(self, normals: Normals, number: Places, failures: Places) -> None:
        """Draw so many for each datum, and take the estimates of those with one number of draws together."""
        device, dimensions = normals.loc.device, normals.loc.shape[-1]
        wider = 1.0 + np.array([*WIDENINGS, 0.0])[failures] / dimensions**0.5
        normals = normals.widened(torch.from_numpy(wider))
        counts = torch.from_numpy(number).to(device)
        weights = sampled_weights(self.path, normals, self.parts, counts, self.max_rows, self.whole)
        for count in np.unique(number[number > 0]):
            places = np.flatnonzero(number == count)
            estimate = LogLikelihood.from_log_weights(torch.stack([weights[place] for place in places], 1))
            self._take(places, estimate, "fitted", count, estimate.trusted)

    def _take(self, places: Places, estimate: LogLikelihood, proposal: str, cost: int, trusted: NDArray[np.bool_]) -> None:
        reached = self.goal.reached(estimate.log_p, estimate.standard_error, estimate.num_samples)
        self.answers.take(places, Answers.of(estimate, proposal, cost, trusted, reached))
