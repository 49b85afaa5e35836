r"""The data whose estimates of :math:`\log p(x)` can be trusted, by their Pareto k-hats or by what takes the place of one.

A k-hat is fitted to the tail of a datum's weights, and there is none where the largest are ties, or where there are too few.
Weights that are all equal are seen in two cases: the guide is the exact posterior, or its discrete latent never leaves one
value, which may be the wrong one. Where all latents are continuous the second case has probability zero.
"""

import numpy as np
from numpy.typing import NDArray

from pyrovae.evaluation.estimates.k_hat_warning import k_hat_threshold
from pyrovae.evaluation.estimates.pareto_k_hat import FEWEST_DRAWS

Array = NDArray[np.float64]
Booleans = NDArray[np.bool_]
EQUAL = 1e-6
"""Largest share of the draws that the effective sample size may lack where weights differ by rounding alone.

It is their squared coefficient of variation: log weights may differ by 1e-3, as those near -1,000 do in float32.
"""
FEWEST_EFFECTIVE = 10.0
"""Smallest effective sample size at which a mean of bounded weights is trusted: its standard error is then 0.3 nats."""


def trusted(
    k_hat: Array,
    effective_sample_size: Array,
    num_samples: int,
    discrete_latents: bool,
    defensive: Booleans | None,
) -> Booleans:
    r"""Decide which estimates can be trusted, shape ``(N,)``.

    Those are trusted whose k-hat is at most :func:`~.k_hat_warning.k_hat_threshold`. Where no finite k-hat could be fitted,
    an estimate is trusted if

    - its weights are equal but for rounding, :math:`\mathrm{ESS} \ge (1 - 10^{-6}) K` with :math:`K \ge 2`, and all latents
      are continuous; or
    - its draws are of the defensive mixture, :math:`K \ge 30` and :math:`\mathrm{ESS} \ge 10`: its weights are bounded
      by :math:`p(x \mid z) / \alpha_3`, so that a value of z that matters is missed only if the prior's draws miss it, too.

    What no draw of guide or prior hits is beyond any diagnostic.

    Args:
        k_hat: Pareto k-hats, shape ``(N,)``; NaN where none could be fitted, infinite where the tail is all but zero.
        effective_sample_size: of the weights, shape ``(N,)``.
        num_samples: the number of draws :math:`K` a datum.
        discrete_latents: whether a latent of the model is discrete.
        defensive: which data were estimated by draws of the defensive mixture, shape ``(N,)``; None where none were.
    """
    equal = (num_samples > 1) & (not discrete_latents) & (effective_sample_size >= (1.0 - EQUAL) * num_samples)
    bounded = (num_samples >= FEWEST_DRAWS) & (effective_sample_size >= FEWEST_EFFECTIVE)
    excused = equal if defensive is None else equal | (defensive & bounded)
    return (k_hat <= k_hat_threshold(num_samples)) | (~np.isfinite(k_hat) & excused)


def least_trusted_first(k_hat: Array, trusted: Booleans) -> NDArray[np.intp]:
    """Order data: the untrusted, those without a k-hat before the largest; then the trusted, those without one last."""
    finite = np.finfo(float)
    without = np.where(trusted, -np.inf, np.inf)
    heaviness = np.where(np.isnan(k_hat), without, k_hat.clip(finite.min, finite.max))
    return np.lexsort((-heaviness, trusted))
