"""Importance sampling by draws of one kind, and of one number for all data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.likelihood.draws import Draws
from pyrovae.runtime.batches import Batch, Columns
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.precision import Precision, computing_in
from pyrovae.runtime.progress import progress_bar
from pyrovae.runtime.seeds import Seeds, set_seed
from pyrovae.runtime.sharding import in_shards

WORTHWHILE = 2**21
"""Number of draws, of all data together, from which recording and fusing is expected to save time."""


@dataclass(frozen=True)
class ImportanceSampling:
    """Settings of an estimate by draws of one kind and number for all data."""

    number: int
    device: torch.device
    compile: bool | None
    precision: Precision
    progress: bool
    max_rows: int | None
    max_weights: int

    def estimate(
        self,
        model: Program,
        guide: Program,
        data: Columns,
        particles: Sequence[int],
        seeds: Seeds,
        *,
        defensive: bool = False,
        chosen: np.ndarray | None = None,
    ) -> LogLikelihood:
        """Estimate from draws of one kind; the noise of each batch has a seed of its own, whichever process draws it."""
        order = None if chosen is None else torch.from_numpy(chosen.nonzero()[0])
        number_of_data = len(data) if order is None else len(order)
        compile = self.is_worthwhile(number_of_data, self.number)
        limits = self.max_rows, self.max_weights
        draws = Draws(model, guide, data, self.number, self.device, compile, *limits, defensive, order)

        def work(index: int, batch: Batch) -> LogLikelihood:
            """Estimate for one batch, with noise of its own."""
            set_seed(seeds.batch_seed(index), self.device)
            with computing_in(self.precision):
                weights = draws.log_weights(batch)
            found = LogLikelihood.from_log_weights(weights, particles)
            return replace(
                found,
                discrete_dimensions=draws.discrete_dimensions,
                discrete_latents=draws.discrete_latents,
                rounding=self._rounding(draws, batch, index),
            )

        xs = progress_bar(draws.batches(), total=draws.number_of_batches, progress=self.progress)
        return LogLikelihood.concatenate(in_shards(xs, work))

    def is_worthwhile(self, data: int, draws: int) -> bool:
        """Return whether to record and fuse what makes so many draws for each of some data."""
        return data * draws >= WORTHWHILE if self.compile is None else self.compile

    def _rounding(self, draws: Draws, batch: Batch, index: int) -> tuple[float, float] | None:
        if index or self.precision == "highest":
            return None
        errors = draws.rounding(batch, self.precision)
        return errors.mean().item(), errors.abs().mean().item()
