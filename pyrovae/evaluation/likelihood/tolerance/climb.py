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
from pyrovae.evaluation.fitting.modes import FROM_GUIDE, FROM_PRIOR, fit_on, is_alone, with_other_modes
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures
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
"""By how much the standard deviations are larger than fitted, times the square root of the dimensions, after so many looks
with too large a k-hat: a normal distribution that is fitted by its ELBO is narrower than the posterior."""
TEMPERATURES = 32
"""Temperatures of the first annealed chains."""
FEWEST_FROM_PRIOR = 100
"""Fewest temperatures at which chains from the prior are tried."""


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
    complete: NDArray[np.bool_] = field(init=False)

    def look_for_modes(self) -> Answers:
        """Return no answers, but trust in those of the guide where no ascent finds a mode that its draws have not."""
        draws = self.path.sample("guide", START_DRAWS)
        alone, gradients = is_alone(self.path, Normals.from_draws(draws), self._starts(draws))
        answers = Answers.none(np.full(len(self.spent), annealed_tries.GRADIENT * gradients))
        answers.trusted = alone.cpu().numpy()
        return answers

    def fit(self) -> NormalMixtures:
        """Fit normal proposals to each datum, the first from the moments of draws of the guide."""
        draws = self.path.sample("guide", START_DRAWS)
        found = with_other_modes(self.path, fit_on(self.path, Normals.from_draws(draws)), self._starts(draws))
        self.answers = Answers.none(annealed_tries.GRADIENT * found.evaluations.cpu().numpy())
        self.complete = found.complete.cpu().numpy()
        return found.mixtures

    def _starts(self, draws: Tensor) -> Tensor:
        """Choose where ascents begin: at some of the guide's draws, and at draws of the prior where it has some."""
        prior = [self.path.sample("prior", FROM_PRIOR)] if "prior" in self.parts else []
        return torch.cat([draws[:FROM_GUIDE], *prior])

    def sample(self) -> Answers:
        """Draw from the fitted mixtures, as often as the first draws of each say, which are then thrown away.

        What is drawn later is kept, and more is added where it is not enough: draws that are made anew while their error
        looks large lose their largest weights, and leave a mean that is too low.
        """
        fitted, number = self.fit(), len(self.spent)
        wanted, failures, first = np.full(number, FIRST_LOOK), np.zeros(number, dtype=int), True
        kept = [torch.empty(0, dtype=torch.float64, device=self.path.batch.x.device)] * number
        while True:
            more = wanted - np.array([len(weights) for weights in kept])
            left = self.complete & (wanted <= MOST_DRAWS) & (failures < len(WIDENINGS)) & self._left(more)
            if not left.any():
                return self.answers
            drawn = self._draw(fitted, np.where(left, more, 0), failures)
            kept = [torch.cat(both) for both in zip(kept, drawn, strict=True)]
            trusted = self._judge(kept, left, more, final=not first)
            failures += ~trusted
            kept = [weights if good and not first else weights[:0] for weights, good in zip(kept, trusted, strict=True)]
            wanted, first = self._wanted(kept, trusted), False

    def _wanted(self, kept: list[Tensor], trusted: NDArray[np.bool_]) -> Places:
        """Compute how many draws each datum is expected to need, in whole pieces: half as many more than it has, or more."""
        known, have = self.answers, np.array([len(weights) for weights in kept])
        needed = self.goal.draws(known.columns["standard_error"], known.draws).clip(FIRST_LOOK, 2 * MOST_DRAWS)
        needed = np.where(trusted, np.maximum(needed, 1.5 * have), SECOND_LOOK)
        return (np.ceil(needed / PIECE) * PIECE).astype(np.int64)

    def anneal(self) -> Answers:
        """Anneal from fitted proposals, anew and at more temperatures each time."""
        fitted, temperatures = self.fit(), TEMPERATURES
        while (left := self.complete & self._left(cost := annealed_tries.cost_from_fitted(temperatures))).any():
            places = np.arange(len(left)) if self.whole else np.flatnonzero(left)
            index = torch.from_numpy(places).to(self.path.batch.x.device)
            path = self.path.with_batch(self.path.batch.rows(index))
            estimate = annealed_tries.from_fitted(path, fitted.rows(index), temperatures)
            trusted = _chains_count(estimate) & self.complete[places]
            self._take(places, estimate, "annealed", cost, trusted)
            needed = self.goal.draws(estimate.standard_error, np.full(len(places), estimate.num_samples))
            factor = np.where(trusted, needed / estimate.num_samples, 4.0).max()
            temperatures = int(temperatures * min(max(factor, 1.5), 8.0))
        return self.answers

    def anneal_from_prior(self) -> Answers:
        """Anneal from the prior, at as many temperatures as the budget allows."""
        self.answers = Answers.none(np.zeros(len(self.spent), dtype=np.int64))
        temperatures = annealed_tries.temperatures_from_prior(self.goal.budget - int(self.spent.max()))
        if temperatures >= FEWEST_FROM_PRIOR:
            estimate = annealed_tries.from_prior(self.path, temperatures)
            cost = annealed_tries.cost_from_prior(temperatures)
            self._take(np.arange(len(self.spent)), estimate, "annealed from prior", cost, _chains_count(estimate))
        return self.answers

    def _left(self, cost: Places | int) -> NDArray[np.bool_]:
        """Return which data have not reached the goal, and can pay for another try."""
        return ~self.answers.met & (self.spent + self.answers.evaluations + cost <= self.goal.budget)

    def _draw(self, fitted: NormalMixtures, number: Places, failures: Places) -> list[Tensor]:
        """Draw so many log weights of each datum."""
        wider = 1.0 + np.array([*WIDENINGS, 0.0])[failures] / self.path.latents.dimensions**0.5
        counts = torch.from_numpy(number).to(self.path.batch.x.device)
        fitted = fitted.widened(torch.from_numpy(wider))
        return sampled_weights(self.path, fitted, self.parts, counts, self.max_rows, self.whole)

    def _judge(self, kept: list[Tensor], left: NDArray[np.bool_], cost: Places, final: bool) -> NDArray[np.bool_]:
        """Take the estimates of some of the data, and return which of all are not known to be untrusted."""
        counts, trusted = np.array([len(weights) for weights in kept]), np.ones_like(left)
        for count in np.unique(counts[left]):
            places = np.flatnonzero(left & (counts == count))
            estimate = LogLikelihood.from_log_weights(torch.stack([kept[place] for place in places], 1))
            trusted[places] = estimate.trusted
            self._take(places, estimate, "fitted", cost[places], estimate.trusted, final)
        return trusted

    def _take(
        self,
        places: Places,
        estimate: LogLikelihood,
        proposal: str,
        cost: Places | int,
        trusted: NDArray[np.bool_],
        final: bool = True,
    ) -> None:
        reached = final & self.goal.reached(estimate.log_p, estimate.standard_error, estimate.num_samples)
        self.answers.take(places, Answers.of(estimate, proposal, cost, trusted, reached))


def _chains_count(estimate: LogLikelihood) -> NDArray[np.bool_]:
    """Return for which data half of the chains count, by their effective sample size."""
    return estimate.effective_sample_size >= COUNTING_CHAINS * estimate.num_samples
