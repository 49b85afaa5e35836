r"""The mixture of fitted normal distributions, one for each mode, with the guide and the prior, as proposal.

.. math::
    q(u) = 0.9 \sum_j \pi_j N(u; m_j, L_j L_j^\top) + 0.05\, q(u \mid x) + 0.05\, p(u)

The guide and the prior are parts where they can be drawn; the prior bounds the weights where the likelihood is bounded. The
number of draws from each part is fixed beforehand, which leaves the mean weight unbiased.

Sources: Hesterberg, Weighted Average Importance Sampling and Defensive Mixture Distributions (1995); Owen and Zhou, Safe and
Effective Importance Sampling (2000).
"""

import math

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures

SHARE = 0.05
"""Share of the draws from the guide, and of those from the prior."""


def mixture_log_weights(path: Path, fitted: NormalMixtures, others: tuple[Start, ...], number: int) -> Tensor:
    """Draw from the mixture and compute the log weights, shape ``(number, B)``; NaN where the programs fail.

    Args:
        path: the densities of one batch, from the guide where that is a part.
        fitted: the fitted distributions.
        others: the parts beside them.
        number: of draws a datum, at least 10.
    """
    each = int(SHARE * number)
    own = number - each * len(others)
    u = torch.cat([fitted.sample(own), *(path.sample(start, each) for start in others)])
    log_f0, log_joint, log_prior = path.values(u)
    densities = {"guide": log_f0, "prior": log_prior}
    parts = [fitted.log_density(u) + math.log(own / number)]
    parts += [densities[start] + math.log(each / number) for start in others]
    return log_joint.double() - torch.stack(parts).double().logsumexp(0)
