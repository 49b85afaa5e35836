r"""Normal proposals by natural gradients of the ELBO, for many data at once, from gradients of the log density alone.

For :math:`q = N(m, L L^\top)` and :math:`f(u) = \log p(x, u)`, in the coordinates :math:`v` of :math:`u = m + L v`,
:math:`v \sim N(0, I)`,

.. math::
    \mathrm{ELBO} = E f + \log \det L + \text{const}, \qquad
    g = E\, L^\top \nabla f(u), \qquad
    A = -E\, L^\top \nabla^2 f(u)\, L = -E\, (L^\top \nabla f(u))\, v^\top,

and a step of size :math:`\rho` takes the precision to :math:`P = (1 - \rho) I + \rho A` and the mean to :math:`P^{-1} g`,
both in these coordinates. :math:`A = I` and :math:`g = 0` where it ends. The expectations are averages over orthogonal
points (:mod:`~.orthogonal_points`), which make a step exact where the posterior is normal.

Sources: Opper and Archambeau, The Variational Gaussian Approximation Revisited (2009), for the two conditions; Khan and Rue,
The Bayesian Learning Rule (arXiv:2107.04562), section 4, for the step.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evaluation.fitting.normals import Normals
from pyrovae.evaluation.fitting.orthogonal_points import number_of_points, orthogonal_points

LIMITS = 0.25, 4.0
"""Smallest and largest factor of a precision in one step."""
FARTHEST = 3.0
"""Largest step of a mean, in standard deviations."""
STEP_SIZES = (0.7, 0.5, 1.0 / 3.0, 0.25, 0.2)
"""Step size on the way, and those at the end, which average the noise of the last curvatures."""
MAX_STEPS = 25
"""Most steps."""
SMALL_GAIN = 0.1
"""Gain of an ELBO, in nats beyond its noise, below which a fit is at its end."""
LARGE_NOISE = 0.3
"""Noise of an ELBO, in nats, at which it is not known whether a fit is at its end."""

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]
"""The log density and its gradient at positions ``(K, B, D)``, of shapes ``(K, B)`` and ``(K, B, D)``."""


class Fit(NamedTuple):
    """Normal proposals of B data.

    Attributes:
        normals: the proposals.
        elbo: their ELBOs, shape ``(B,)``, in nats.
        converged: whether each ELBO had stopped to rise, shape ``(B,)``.
        evaluations: how many gradients were taken for each datum.
    """

    normals: Normals
    elbo: Tensor
    converged: Tensor
    evaluations: int


class _Look(NamedTuple):
    """What the points around proposals say: the ELBO, its standard error, g and A."""

    elbo: Tensor
    error: Tensor
    gradient: Tensor
    curvature: Tensor

    def where(self, chosen: Tensor, other: "_Look") -> "_Look":
        """Take this for the chosen data, ``(B,)``, and the other for the rest."""
        return _Look(*(torch.where(chosen[(..., *[None] * (a.dim() - 1))], a, b) for a, b in zip(self, other, strict=True)))


def fit_normals(gradient: Gradient, start: Normals) -> Fit:
    """Maximise the ELBO of a normal proposal for each datum, from a start.

    A step that lowers an ELBO by more than its noise is taken back, and taken again at a third of its size. A point at
    which the density or its gradient is not a number counts as a steep wall.
    """
    normals, look = start, _look(gradient, start)
    sizes = look.elbo.new_tensor(STEP_SIZES)
    size, ended = torch.ones_like(look.elbo), torch.zeros_like(look.elbo, dtype=torch.int64)
    steps = 0
    while steps < MAX_STEPS and bool((ended < len(sizes)).any()):
        new = _stepped(normals, look, size * sizes[ended.clamp(max=len(sizes) - 1)])
        found, steps = _look(gradient, new), steps + 1
        gain, noise = found.elbo - look.elbo, found.error + look.error
        kept = (gain > -noise) | ~look.elbo.isfinite()
        normals, look = new.where(kept, normals), found.where(kept, look)
        size = torch.where(kept, (2.0 * size).clamp(max=1.0), size / 3.0)
        ended = ended + (kept & ((ended > 0) | ((gain < SMALL_GAIN + noise) & (noise < LARGE_NOISE))))
    return Fit(normals, look.elbo, ended >= len(sizes), (steps + 1) * number_of_points(start.loc.shape[-1]))


def _look(gradient: Gradient, normals: Normals) -> _Look:
    v = orthogonal_points(len(normals.loc), normals.loc)
    log_density, slope = (value.to(v.dtype) for value in gradient(normals.coloured(v)))
    white = normals.whitened_gradient(slope)
    defined = log_density.isfinite() & (white.abs() < torch.finfo(v.dtype).max ** 0.5).all(-1)  # products are finite
    white = torch.where(defined[..., None], white, -LIMITS[1] * v)
    curvature = -torch.einsum("kbi,kbj->bij", white, v) / len(v)
    level = log_density + 0.5 * v.square().sum(-1)  # constant where the fit is exact; the mean of what is added is known
    pairs = torch.stack(level.where(defined, torch.nan).chunk(2)).nanmean(0)
    mean = pairs.nanmean(0) - 0.5 * v.shape[-1] + normals.log_det
    elbo = torch.where(defined.double().mean(0) > 0.5, mean, -torch.inf)
    error = (pairs - pairs.nanmean(0)).square().nanmean(0).sqrt() / len(pairs) ** 0.5
    return _Look(elbo, error.nan_to_num(), white.mean(0), 0.5 * (curvature + curvature.mT))


def _stepped(normals: Normals, look: _Look, size: Tensor) -> Normals:
    """Take the step of the precision and that of the mean, each within its limits."""
    factors, axes = torch.linalg.eigh(look.curvature)
    factors = torch.lerp(torch.ones_like(factors), factors, size[:, None]).clamp(min=LIMITS[0])
    step = axes @ ((axes.mT @ look.gradient[..., None]) / factors[..., None])
    step = step * (FARTHEST / step.norm(dim=1, keepdim=True)).clamp(max=1.0)
    root = normals.scale_tril @ (axes * factors[:, None].clamp(max=LIMITS[1]).rsqrt())
    loc = normals.loc + (normals.scale_tril @ step)[..., 0]
    return Normals(loc, _triangle(root))


def _triangle(root: Tensor) -> Tensor:
    """Compute the lower triangle L with L L' = R R' of a root R; its square has no Cholesky factor where R is stiff."""
    upper = torch.linalg.qr(root.mT, mode="r")[1]
    diagonal = upper.diagonal(dim1=-2, dim2=-1)
    return upper.mT * torch.ones_like(diagonal).copysign(diagonal)[:, None]
