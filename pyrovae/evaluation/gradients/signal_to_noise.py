r"""The statistics of an objective's gradient: its mean, its variance and their signal-to-noise ratio."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates import importance
from pyrovae.evaluation.gradients.parameter_names import PROGRAMS

Array = NDArray[np.float64]


class GradientSummary(NamedTuple):
    r"""The gradient of a group of parameters in a few numbers.

    It has no standard error, as the gradients of different parameters depend on each other; those of single parameters are
    in :class:`GradientStatistics`.

    Attributes:
        size: the number of scalar parameters.
        norm: the norm of their mean gradient.
        variance: the mean of their variances.
        snr: the mean of their signal-to-noise ratios, those without a variance left out; NaN where none is left.
        constant: how many were left out, their gradient being the same at every draw.
    """

    size: int
    norm: float
    variance: float
    snr: float
    constant: int


@dataclass(frozen=True, eq=False)
class GradientStatistics:
    r"""Mean and variance of the gradient of an objective's loss on one batch, for every scalar parameter.

    The loss is what the objective's module returns: minus the bound (plus an upper one), summed over the batch, in nats.
    Gradients are in nats per unit of a parameter; one under a constraint counts by its unconstrained value, which is what an
    optimizer moves. All arrays are NumPy's, of the parameter's shape, by name. A name begins with the program that the
    parameter is used in: ``model.``, ``guide.``, ``shared.`` for both, ``unused.`` for neither.

    Attributes:
        mean: the mean :math:`\bar g`, float64, by name.
        variance: the unbiased variance :math:`\hat\sigma^2(g)` of one gradient, by name.
        num_samples: the number R of gradients drawn.
    """

    mean: dict[str, Array]
    variance: dict[str, Array]
    num_samples: int

    @property
    def standard_error(self) -> dict[str, Array]:
        r"""The Monte Carlo standard error of the mean, :math:`\hat\sigma(g) / \sqrt R`, by name."""
        return _map_arrays(lambda variance: np.sqrt(variance / self.num_samples), self.variance)

    def interval(self, level: float = 0.95) -> tuple[dict[str, Array], dict[str, Array]]:
        """The Monte Carlo interval of the mean by Student's t, its lower and its upper ends by name."""
        reach = importance.student(self.num_samples, level)
        error = self.standard_error
        lower = _map_arrays(lambda mean, error: mean - reach * error, self.mean, error)
        return lower, _map_arrays(lambda mean, error: mean + reach * error, self.mean, error)

    @property
    def snr(self) -> dict[str, Array]:
        r"""The signal-to-noise ratio :math:`|\bar g| / \hat\sigma(g)`, by name.

        Where the gradient is the same at every draw it is infinite, or NaN if that is 0.

        Source: Rainforth et al., Tighter Variational Bounds are Not Necessarily Better (arXiv:1802.04537), section 3.
        """
        return _map_arrays(_ratio, self.mean, self.variance)

    @property
    def floor(self) -> float:
        r"""The ratio that noise alone shows, :math:`E|\bar g| / \sigma(g) = \sqrt{2 / (\pi R)}` of normal g with mean 0."""
        return math.sqrt(2 / (math.pi * self.num_samples))

    @property
    def parameters(self) -> dict[str, GradientSummary]:
        """A summary of each parameter tensor, by name, those of the model first."""
        names = sorted(self.mean, key=lambda name: PROGRAMS.index(name.partition(".")[0]))
        return {name: self._summary([name]) for name in names}

    @property
    def programs(self) -> dict[str, GradientSummary]:
        """A summary of all parameters of the ``model``, all of the ``guide``, those ``shared``, and those ``unused``."""
        members = {program: [name for name in self.mean if name.startswith(f"{program}.")] for program in PROGRAMS}
        return {program: self._summary(names) for program, names in members.items() if names}

    def _summary(self, names: Sequence[str]) -> GradientSummary:
        mean, variance = (np.concatenate([values[n].ravel() for n in names]) for values in (self.mean, self.variance))
        varies = variance > 0
        snr = float(_ratio(mean[varies], variance[varies]).mean()) if varies.any() else math.nan
        return GradientSummary(len(mean), float(np.linalg.norm(mean)), float(variance.mean()), snr, int((~varies).sum()))

    def __str__(self) -> str:
        rows = [*self.programs.items(), *self.parameters.items()]
        width = max(len("parameter"), *(len(name) for name, _ in rows))
        header = f"  {'parameter':<{width}}{'size':>10}{'|mean|':>12}{'variance':>12}{'SNR':>10}{'constant':>10}"
        lines = [
            f"  {name:<{width}}{row.size:>10,}{row.norm:>12.4g}{row.variance:>12.4g}{row.snr:>10.4f}{row.constant:>10,}"
            for name, row in rows
        ]
        split = len(self.programs)
        title = f"gradient of the loss by {self.num_samples:,} draws; noise alone would show an SNR of {self.floor:.4f}"
        return "\n".join([title, "", header, *lines[:split], "", *lines[split:]])


def _ratio(mean: Array, variance: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(mean) / np.sqrt(variance)


def _map_arrays(function: Callable[..., Any], *columns: Mapping[str, Array]) -> dict[str, Array]:
    """Apply a function to the arrays of each name."""
    return {name: np.asarray(function(*(column[name] for column in columns))) for name in columns[0]}
