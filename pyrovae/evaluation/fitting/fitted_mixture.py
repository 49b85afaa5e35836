r"""The mixture of a fitted normal distribution with the guide and the prior, as proposal.

.. math::
    q(u) = 0.9\, N(u; m, L L^\top) + 0.05\, q(u \mid x) + 0.05\, p(u)

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
from pyrovae.evaluation.fitting.normals import Normals

SHARE = 0.05
"""Share of the draws from the guide, and of those from the prior."""


def mixture_log_weights(path: Path, normals: Normals, others: tuple[Start, ...], number: int) -> Tensor:
    """Draw from the mixture and compute the log weights, shape ``(number, B)``; NaN where the programs fail.

    Args:
        path: the densities of one batch, from the guide where that is a part.
        normals: the fitted distributions.
        others: the parts beside them.
        number: of draws a datum, at least 10.
    """
    each = int(SHARE * number)
    own = number - each * len(others)
    noise = torch.randn(own, *normals.loc.shape, dtype=normals.loc.dtype, device=normals.loc.device)
    u = torch.cat([normals.coloured(noise), *(path.sample(start, each) for start in others)])
    log_f0, log_joint, log_prior = path.values(u)
    densities = {"guide": log_f0, "prior": log_prior}
    parts = [normals.log_density(u) + math.log(own / number)]
    parts += [densities[start] + math.log(each / number) for start in others]
    return log_joint.double() - torch.stack(parts).double().logsumexp(0)
