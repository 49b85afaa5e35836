r"""The gap between a guide's ELBO and :math:`\log p(x)`, split into amortization and approximation."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.standard_error import mean_and_error, means_and_errors, student_interval
from pyrovae.evaluation.likelihood.log_likelihood import log_likelihood
from pyrovae.evaluation.likelihood.refine import refine
from pyrovae.runtime.batches import DataLike
from pyrovae.runtime.memory import MAX_WEIGHTS


@dataclass(frozen=True, eq=False)
class InferenceGaps:
    r"""The gap between :math:`\log p(x)` and a guide's ELBO in two parts, of each datum, in nats.

    .. math::
        \log p(x) - \mathrm{ELBO}(q) =
        \underbrace{\log p(x) - \mathrm{ELBO}(q^*)}_\text{approximation} +
        \underbrace{\mathrm{ELBO}(q^*) - \mathrm{ELBO}(q)}_\text{amortization},

    where :math:`q^*` is the refined proposal of the same family. Its mean, standard error and interval are those of the
    :attr:`terms` in their order, NumPy arrays of shape ``(2,)``; the error is that of the choice of data, in which what the
    draws leave uncertain is contained.

    Attributes:
        amortized: the estimates with the guide.
        refined: the estimates with the refined guide.
        terms: the names of the two parts.
    """

    amortized: LogLikelihood
    refined: LogLikelihood
    terms: ClassVar[tuple[str, ...]] = ("amortization", "approximation")

    @property
    def amortization(self) -> NDArray[np.float64]:
        """Amortization gap, shape ``(N,)``: what refinement gains, as far as it found the optimum."""
        return self.refined.bounds[1] - self.amortized.bounds[1]

    @property
    def approximation(self) -> NDArray[np.float64]:
        """Approximation gap, shape ``(N,)``: the estimate of log p(x) minus the refined ELBO."""
        return self.refined.gap(1)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The means over data of the two gaps, shape ``(2,)``."""
        return self._means_and_errors()[0]

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """The standard errors of the two means, shape ``(2,)``."""
        return self._means_and_errors()[1]

    def interval(self, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Student's intervals of the two means, two arrays ``(2,)``."""
        return student_interval(self.mean, self.standard_error, len(self.amortization), level)

    def _means_and_errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return means_and_errors(np.stack([getattr(self, term) for term in self.terms]))

    def __str__(self) -> str:
        rows = [("ELBO", self.amortized.bounds[1]), ("ELBO, refined", self.refined.bounds[1])]
        rows += [("log p(x)", self.refined.log_p)]
        rows += [("amortization gap", self.amortization), ("approximation gap", self.approximation)]
        means = [(name, *mean_and_error(values)) for name, values in rows]
        lines = [f"  {name:<22}{mean:>12.4f} ± {error:.4f}" for name, mean, error in means]
        return "\n".join([f"{len(self.amortization):,} data, in nats", "", *lines])


@takes_pair
def inference_gaps(
    pair: PairLike,
    data: DataLike,
    num_samples: int = 1000,
    *,
    steps: int = 200,
    learning_rate: float = 0.05,
    num_particles: int = 8,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = True,
    max_rows: int | None = None,
    max_weights: int = MAX_WEIGHTS,
) -> InferenceGaps:
    """Split the gap of a guide's ELBO into the amortization gap and the approximation gap of its family.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the guide is of a kind that
            :func:`refine` takes.
        data: as :func:`pyrovae.log_likelihood` takes them.
        num_samples: draws a datum, of either guide.
        steps: gradient steps of the refinement.
        learning_rate: of the refinement, at its start.
        num_particles: draws a datum and step of the refinement.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        progress: show a bar over data on stderr, one for either guide, once the call has taken two seconds.
        max_rows: at most so many rows, draws times data, in one pass of the programs; if null, as many as fit.
        max_weights: the most weights to hold, as :func:`pyrovae.log_likelihood` has it.

    Returns:
        :class:`InferenceGaps`; print it for a table.

    Raises:
        InputError: as :func:`refine` and :func:`pyrovae.log_likelihood` do.

    Warns:
        ImportanceSamplingWarning: as :func:`pyrovae.log_likelihood` does.
    """
    model, guide = programs(pair)
    better = refine(pair, steps, learning_rate=learning_rate, num_particles=num_particles, seed=seed)
    settings: dict[str, Any] = {"seed": seed, "device": device, "compile": False, "progress": progress}
    settings |= {"max_rows": max_rows, "max_weights": max_weights}
    pairs = (model, guide), (model, better)
    found = [log_likelihood(each, data, num_samples, num_particles=(1,), **settings) for each in pairs]
    return InferenceGaps(*found)
