r"""log p(x) of each datum by going through all latents: a sum over a grid, which is exact but for rounding.

The trapezoidal rule converges faster than any power of its step for densities that are smooth and die out, so that a step of
a third of the narrowest standard deviation is enough.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from tests.wild.case import Case
from tests.wild.stock import Draws, log_joint


def over_grid(case: Case, name: str, dimensions: int, step: float = 0.6, reach: float = 5.4, also: Iterable[Draws] = ({},)):
    """log p(x) for one latent site of real vectors, ``(B, dimensions)``, and beside it for every value of ``also``."""
    axis = torch.arange(-reach, reach + step / 2, step)
    nodes = torch.cartesian_prod(*[axis] * dimensions).reshape(-1, dimensions)
    with torch.no_grad():
        joint = [log_joint(case, {name: z.expand(case.size, -1), **more}) for z in nodes for more in also]
    return torch.stack(joint).logsumexp(0) + dimensions * math.log(step)


def over_values(case: Case, points: Iterable[tuple[Draws, float]]) -> Tensor:
    """log p(x) as a weighted sum over points: draws, and the logarithm of the volume that each stands for."""
    with torch.no_grad():
        return torch.stack([log_joint(case, draws) + volume for draws, volume in points]).logsumexp(0)


def affine(case: Case, mean: Callable[[Tensor], Tensor], latent_dim: int, scale: float) -> Tensor:
    r"""log p(x) where :math:`z \sim N(0, I)` and :math:`x \sim N(A_b z + c_b, s^2 I)`, the mean being any affine program."""
    with torch.no_grad():
        offset = mean(torch.zeros(case.size, latent_dim))
        columns = [mean(unit.expand(case.size, -1)) - offset for unit in torch.eye(latent_dim)]
        slope = torch.stack(columns, -1)
        covariance = slope @ slope.mT + scale**2 * torch.eye(offset.shape[-1])
        return torch.distributions.MultivariateNormal(offset, covariance).log_prob(case.args[0])
