"""Rate and distortion of several pairs on the same data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import programs
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.estimates.standard_error import mean_and_error, means_and_errors, student_interval
from pyrovae.evaluation.latent.weighted_batches import weighed
from pyrovae.objectives.elbo import kl_terms
from pyrovae.runtime.batches import DataLike, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.parameters import Program
from pyrovae.runtime.seeds import seeded

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RateDistortion:
    r"""Rate and distortion of several pairs, :math:`-\mathrm{ELBO} = D + R`, in nats a datum.

    Its mean, standard error and interval are NumPy arrays of shape ``(pairs, 3)``, the pairs in the order of :attr:`names`
    and the columns in that of :attr:`terms`. The error is that of the choice of data and of the draws together.

    Attributes:
        rates: the KL of each datum, by the name of the pair; each of shape ``(N,)``.
        distortions: :math:`-E_q[\log p(x \mid z)]` of each datum, by the name of the pair.
        num_samples: draws a datum.
        terms: the names of what is estimated of each pair.
    """

    rates: dict[str, Array]
    distortions: dict[str, Array]
    num_samples: int
    terms: ClassVar[tuple[str, ...]] = ("rate", "distortion", "elbo")

    @property
    def names(self) -> list[str]:
        """The pairs, in the order given."""
        return [*self.rates]

    @property
    def mean(self) -> Array:
        """The means over data, shape ``(pairs, 3)``."""
        return self._means_and_errors()[0]

    @property
    def standard_error(self) -> Array:
        """The standard errors of the means, shape ``(pairs, 3)``."""
        return self._means_and_errors()[1]

    def interval(self, level: float = 0.95) -> tuple[Array, Array]:
        """Student's intervals of the means, two arrays ``(pairs, 3)``."""
        return student_interval(self.mean, self.standard_error, len(self.rates[self.names[0]]), level)

    def _means_and_errors(self) -> tuple[Array, Array]:
        pairs = zip(self.rates.values(), self.distortions.values(), strict=True)
        return means_and_errors(np.stack([np.stack([rate, distortion, -rate - distortion]) for rate, distortion in pairs]))

    def rate(self, name: str) -> tuple[float, float]:
        """Return the mean rate and its standard error, of the choice of data and of the draws together."""
        return mean_and_error(self.rates[name])

    def distortion(self, name: str) -> tuple[float, float]:
        """Return the mean distortion and its standard error."""
        return mean_and_error(self.distortions[name])

    def elbo(self, name: str) -> tuple[float, float]:
        """Return the mean ELBO and its standard error, which takes the covariance of rate and distortion into account."""
        return mean_and_error(-self.rates[name] - self.distortions[name])

    def __str__(self) -> str:
        width = max(len("pair"), *map(len, self.names)) + 2
        data = len(next(iter(self.rates.values())))
        lines = [
            f"Rate and distortion of {data:,} data, {self.num_samples:,} draws each, in nats; ELBO = -rate - distortion",
            "",
            f"  {'pair':<{width}}{'rate':>20}{'distortion':>22}{'ELBO':>22}",
        ]
        for name in self.names:
            found = self.rate(name), self.distortion(name), self.elbo(name)
            rate, distortion, elbo = (f"{mean:.3f} ± {error:.3f}" for mean, error in found)
            lines.append(f"  {name:<{width}}{rate:>20}{distortion:>22}{elbo:>22}")
        return "\n".join(lines)


def rate_distortion(
    pairs: Mapping[str, Any],
    data: DataLike,
    num_samples: int = 10,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    max_rows: int | None = None,
) -> RateDistortion:
    r"""Estimate the rate and the distortion of pairs on the same data.

    .. math::
        R = \frac1N \sum_n KL(q(z \mid x_n) \,\|\, p(z)), \qquad D = -\frac1N \sum_n E_{q(z \mid x_n)}[\log p(x_n \mid z)]

    Pairs of one :math:`D + R` have one ELBO and need not be alike: a rate of 0 tells of latents that say nothing. The pairs
    of one architecture trained with several weights of the KL (``BetaELBO``) make its curve. The rate bounds the mutual
    information of data and latent from above. With continuous data the distortion is that of a density, and can be negative.

    The KL is taken from formulas where torch has them, otherwise from the draws; all pairs have the same seed.

    Args:
        pairs: by name, each ``(model, guide)`` or a ``VAE``.
        data: the data, as :func:`pyrovae.log_likelihood` takes them.
        num_samples: draws a datum.
        seed: where the noise of each pair starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        max_rows: at most so many rows, draws times data, in one pass of the programs; if null, 4,096.

    Returns:
        :class:`RateDistortion`; print it for a table, ``plots.rate_distortion`` draws it.

    Raises:
        InputError: where there is no pair, for a value that is none, for numbers below 1, and for a pair that cannot be
            weighed (see :func:`pyrovae.engine.log_weights.log_weights`).

    References:
        | Fixing a Broken ELBO (Alemi et al., 2018), figure 1
        | https://arxiv.org/abs/1711.00464
    """
    if not pairs:
        raise InputError("there is no pair; expected one or more by name: {'one': vae, 'other': (model, guide)}")
    require_positive(num_samples=num_samples, max_rows=max_rows)
    found = {
        name: _terms(*programs(value, f"model {name!r}"), data, num_samples, seed, device, max_rows)
        for name, value in pairs.items()
    }
    return RateDistortion(
        {name: rate for name, (rate, _) in found.items()},
        {name: distortion for name, (_, distortion) in found.items()},
        num_samples,
    )


def _terms(
    model: Program,
    guide: Program,
    data: DataLike,
    num_samples: int,
    seed: int,
    device: torch.device | str | None,
    max_rows: int | None,
) -> tuple[Array, Array]:
    """Estimate the rate and the distortion of each datum, shape ``(N,)``."""
    columns = as_data(data)
    device = home(columns, device)
    rates, distortions = [], []
    with torch.no_grad(), evaluating(model, guide), seeded(seed, device):
        for _, _, weights in weighed(Pair(model, guide), columns, num_samples, device, max_rows, "the distortion"):
            kl = sum(kl_terms(weights).values(), torch.zeros_like(weights.total))
            rates.append(kl.double().mean(0).cpu())
            distortions.append(-weights.log_likelihood.double().mean(0).cpu())
    return torch.cat(rates).numpy(), torch.cat(distortions).numpy()
