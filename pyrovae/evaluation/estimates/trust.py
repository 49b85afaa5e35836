r"""The data whose estimates of :math:`\log p(x)` can be trusted, by their Pareto k-hats or by what takes the place of one.

A k-hat is fitted to the tail of a datum's weights. Where the largest weights are ties, or there are too few, there is none,
and weights that are all equal are seen in two cases: the guide is the exact posterior, or a discrete latent of it never leaves
one value, which may be the wrong one. With continuous latents only the first has probability above zero.
"""

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates.pareto_k_hat import FEWEST_DRAWS

Array = NDArray[np.float64]
Booleans = NDArray[np.bool_]
EQUAL = 1e-6
"""Largest share of the draws that the effective sample size may lack where weights differ by rounding alone.

It is their squared coefficient of variation: log weights may differ by 1e-3, as those near -1,000 do in float32.
"""
FEWEST_EFFECTIVE = 10.0
"""Least effective sample size that makes a mean of bounded weights, with a standard error of a third, and makes it known."""


def trusted(
    k_hat: Array,
    effective_sample_size: Array,
    num_samples: int,
    *,
    threshold: float,
    discrete_latents: bool,
    defensive: Booleans | None,
) -> Booleans:
    r"""Decide which estimates can be trusted, shape ``(N,)``.

    Those are trusted whose k-hat is at most ``threshold``. Where no finite k-hat could be fitted, an estimate is trusted if

    - its weights are equal but for rounding, :math:`\mathrm{ESS} \ge (1 - 10^{-6}) K` with :math:`K \ge 2`, and all latents
      are continuous; or
    - the draws were of the defensive mixture, :math:`K \ge 30` and :math:`\mathrm{ESS} \ge 10`: its weights are bounded by
      :math:`p(x \mid z) / \alpha_3`, so that those that count are as large as any.
    """
    equal = (num_samples > 1) & (not discrete_latents) & (effective_sample_size >= (1.0 - EQUAL) * num_samples)
    bounded = (num_samples >= FEWEST_DRAWS) & (effective_sample_size >= FEWEST_EFFECTIVE)
    excused = equal if defensive is None else equal | (defensive & bounded)
    return (k_hat <= threshold) | (~np.isfinite(k_hat) & excused)


def least_trusted_first(k_hat: Array, trusted: Booleans) -> NDArray[np.intp]:
    """Order data: the untrusted, those without a k-hat before the largest; then the trusted, those without one last."""
    finite = np.finfo(float)
    without = np.where(trusted, -np.inf, np.inf)
    heaviness = np.where(np.isnan(k_hat), without, k_hat.clip(finite.min, finite.max))
    return np.lexsort((-heaviness, trusted))
