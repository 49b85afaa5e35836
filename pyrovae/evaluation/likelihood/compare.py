r"""Comparison of several models by the probability that they give to the same data, with the error of each difference."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyrovae.engine.programs import programs
from pyrovae.errors import InputError
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.standard_error import mean_and_error, means_and_errors, student_interval
from pyrovae.evaluation.likelihood.log_likelihood import log_likelihood
from pyrovae.runtime.batches import DataLike

if TYPE_CHECKING:
    from pandas import DataFrame

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Estimates of log p(x) of the same data under several models, the best first.

    Its mean, standard error and interval are those of the paired differences from the best model, NumPy arrays of shape
    ``(models,)``, in nats; the error is that of the choice of data, in which what the draws leave uncertain is contained.

    Attributes:
        estimates: of each model, by its name, in the order of their means.
    """

    estimates: dict[str, LogLikelihood]

    @property
    def names(self) -> list[str]:
        """The models, the best first."""
        return [*self.estimates]

    @property
    def mean(self) -> Array:
        """Mean difference in log p(x) of the best model from each, shape ``(models,)``; 0 for the best itself."""
        return self._below()[0]

    @property
    def standard_error(self) -> Array:
        """The standard error of each mean difference, shape ``(models,)``."""
        return self._below()[1]

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Student's interval of each mean difference, two arrays ``(models,)``."""
        number = len(self.estimates[self.names[0]].log_p)
        return student_interval(self.mean, self.standard_error, number, level)

    def _below(self) -> tuple[Array, Array]:
        best = self.estimates[self.names[0]].log_p
        return means_and_errors(np.stack([best - estimate.log_p for estimate in self.estimates.values()]))

    def difference(self, name: str, other: str | None = None) -> tuple[float, float]:
        r"""Compute how far a model is below another, in the mean over the data, and its standard error, in nats.

        .. math::
            \bar d = \frac1N \sum_n d_n, \quad \mathrm{se} = \mathrm{sd}(d) / \sqrt N, \qquad
            d_n = \log \hat p_\text{other}(x_n) - \log \hat p(x_n)

        The differences are of the same data, so that what makes a datum improbable under every model is not in their spread;
        what the draws leave uncertain of each estimate is.

        Args:
            name: the model.
            other: the one to compare it with; by default the best.

        Raises:
            InputError: for a name that is none of the models.
        """
        for wanted in (name, other):
            if wanted is not None and wanted not in self.estimates:
                raise InputError(f"there is no model {wanted!r}; expected one of {', '.join(map(repr, self.names))}")
        above, below = (self.estimates[each] for each in (other or self.names[0], name))
        return mean_and_error(above.log_p - below.log_p)

    def to_frame(self) -> "DataFrame":
        """Tabulate the models as a ``pandas.DataFrame``, a row each, in the form of ``arviz.compare``.

        Its columns are ``rank``, ``log_p`` (mean), ``se`` (of the data), ``diff`` (below the best), ``dse`` (of that,
        paired), ``mc_error`` (of the draws) and ``share_untrusted``, the share of data that are not trusted.
        """
        from pandas import DataFrame

        rows = []
        for rank, (name, estimate) in enumerate(self.estimates.items()):
            diff, dse = (0.0, 0.0) if rank == 0 else self.difference(name)
            row = {"rank": rank, "log_p": estimate.mean, "se": estimate.data_error, "diff": diff, "dse": dse}
            rows.append(row | {"mc_error": estimate.monte_carlo_error, "share_untrusted": estimate.share_untrusted})
        return DataFrame(rows, index=self.names)

    def __str__(self) -> str:
        width = max(len("model"), *map(len, self.names)) + 2
        first = next(iter(self.estimates.values()))
        lines = [
            f"log p(x) of the same {len(first.log_p):,} data, in nats; differences are paired",
            "",
            f"  {'model':<{width}}{'log p(x)':>20}{'below the best':>22}{'not trusted':>14}",
        ]
        for rank, (name, estimate) in enumerate(self.estimates.items()):
            diff, dse = self.difference(name)
            below = "" if rank == 0 else f"{diff:.3f} ± {dse:.3f}"
            mean = f"{estimate.mean:.3f} ± {estimate.data_error:.3f}"
            lines.append(f"  {name:<{width}}{mean:>20}{below:>22}{estimate.share_untrusted:>14.1%}")
        doubtful = [name for name, estimate in self.estimates.items() if estimate.warning]
        if doubtful:
            lines += [
                "",
                f"  Too many data cannot be trusted: {', '.join(doubtful)} may be better than it seems.",
            ]
        return "\n".join(lines)


def compare(models: Mapping[str, Any], data: DataLike | None = None, num_samples: int = 5000, **options: Any) -> Comparison:
    r"""Rank several models by :math:`\log p(x)` of the same data, with paired differences.

    Args:
        models: by name, each a pair ``(model, guide)``, a ``VAE``, or an estimate of :func:`pyrovae.log_likelihood` on the
            same data.
        data: the data, as :func:`pyrovae.log_likelihood` takes them; not needed where all are estimates.
        num_samples: draws a datum, where ``options`` hold no ``tolerance``.
        options: more that :func:`pyrovae.log_likelihood` takes.

    Returns:
        :class:`Comparison`; print it for a table, ``plots.comparison`` draws it.

    Raises:
        InputError: for less than two models, for one that is none, without data to evaluate a model on, and for estimates of
            different numbers of data.

    Warns:
        ImportanceSamplingWarning: as :func:`pyrovae.log_likelihood` does.
    """
    if len(models) < 2:
        raise InputError(f"there are {len(models)} models; expected two or more, by name: {{'one': vae, 'other': other}}")
    estimates = {name: _estimate(name, model, data, num_samples, options) for name, model in models.items()}
    numbers = {name: len(estimate.log_p) for name, estimate in estimates.items()}
    if len(set(numbers.values())) > 1:
        said = ", ".join(f"{name!r} of {number}" for name, number in numbers.items())
        raise InputError(f"the estimates are of different numbers of data: {said}; evaluate all on the same data")
    return Comparison(dict(sorted(estimates.items(), key=lambda item: -item[1].mean)))


def _estimate(name: str, model: Any, data: DataLike | None, num_samples: int, options: dict[str, Any]) -> LogLikelihood:
    if isinstance(model, LogLikelihood):
        return model
    pair = programs(model, f"model {name!r}", "a pair, or an estimate of log_likelihood")
    if data is None:
        raise InputError(f"model {name!r} has no estimate yet, and there are no data; pass compare(models, data)")
    return log_likelihood(pair, data, num_samples, **options)
