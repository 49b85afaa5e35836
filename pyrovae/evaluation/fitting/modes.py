"""Other modes of a posterior, beside the one to which a normal proposal was fitted.

Ascents of the log density begin at draws of the guide and of the prior. One that ends away from the fitted proposal, and not
far below it, is where another proposal is fitted; it is kept where its ELBO says that it holds a share of the posterior.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.fitting.natural_gradient import Fit, fit_normals
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures
from pyrovae.evaluation.fitting.normals import Normals

FROM_GUIDE, FROM_PRIOR = 2, 10
"""Ascents from draws of the guide, and of the prior: a mode at which half of the latter end is missed once in a thousand."""
MAX_STEPS = 60
"""Most steps of an ascent."""
SHORTEST = 1e-3
"""Length of a step, as a part of a full one, at which an ascent that finds no higher place is given up."""
FAR = 4.0
"""Standard deviations, beyond the radius at which the draws of a normal distribution lie, where another mode begins."""
NEGLIGIBLE = 7.0
"""Nats by which the ELBO of a mode may be lower: its share of the posterior is then below one in a thousand."""
MOST = 3
"""Most modes that are found beside the first."""


class Ends(NamedTuple):
    """Where ascents ended.

    Attributes:
        u: the positions, shape ``(S, B, D)``.
        log_density: the log densities there, shape ``(S, B)``.
        settled: whether the gradient is small there, shape ``(S, B)``.
        evaluations: how many gradients were taken for each datum.
    """

    u: Tensor
    log_density: Tensor
    settled: Tensor
    evaluations: int


class Modes(NamedTuple):
    """Proposals with a part for each mode that was found.

    Attributes:
        mixtures: the proposals.
        complete: whether every ascent ended at one of their parts, or far below, shape ``(B,)``.
        evaluations: how many gradients each datum took, shape ``(B,)``.
    """

    mixtures: NormalMixtures
    complete: Tensor
    evaluations: Tensor


def fit_on(path: Path, start: Normals) -> Fit:
    """Fit normal proposals to the end of a path."""
    return fit_normals(lambda u: path.joint(u, start.loc.expand_as(u)), start)


def with_other_modes(path: Path, fit: Fit, starts: Tensor) -> Modes:
    """Add the other modes of each posterior to its fitted proposal.

    Args:
        path: the densities.
        fit: the fitted proposals.
        starts: where ascents begin, shape ``(S, B, D)``.
    """
    ends, parts, known = _ascended(path, fit.normals, starts), [fit.normals], _Known([fit.elbo], [fit.converged])
    evaluations = torch.full_like(fit.elbo, fit.evaluations + ends.evaluations, dtype=torch.int64)
    open_ends = torch.ones_like(ends.log_density, dtype=torch.bool)
    for _ in range(MOST):
        chosen, place = _highest(open_ends & _is_other(parts, known.counts, ends), ends)
        index = chosen.nonzero()[:, 0]
        if not len(index):
            break
        begin = fit.normals._replace(loc=_taken(ends.u, place))
        found = fit_on(path.with_batch(path.batch.rows(index)), begin.rows(index))
        part = Normals(*(a.index_copy(0, index, b) for a, b in zip(begin, found.normals, strict=True)))
        twin = _distances(parts, part.loc[None])[:, 0].masked_fill(~known.counts, torch.inf).amin(0) < 1.0
        known.add(index, found, twin)
        parts.append(part)
        open_ends = open_ends & ~(chosen & (torch.arange(len(starts), device=place.device)[:, None] == place))
        evaluations = evaluations.index_add(0, index, torch.full_like(index, found.evaluations))
    left = (open_ends & _is_other(parts, known.counts, ends)).any(0)
    mixtures = _mixed(parts, torch.stack(known.elbos))
    return Modes(mixtures, ~left & ~_met_once(mixtures, ends), evaluations)


class _Known(NamedTuple):
    """The ELBOs of the parts that are known, and whether their fits converged, each of shape ``(B,)``."""

    elbos: list[Tensor]
    converged: list[Tensor]

    @property
    def counts(self) -> Tensor:
        """Return which parts say what is around them, as they hold a share or their fits ended, shape ``(J, B)``."""
        elbos = torch.stack(self.elbos)
        return (elbos > elbos.amax(0) - NEGLIGIBLE) | torch.stack(self.converged)

    def add(self, index: Tensor, found: Fit, twin: Tensor) -> None:
        """Add a part that some of the data have; where it is the twin of another it holds no share."""
        nothing = torch.full_like(self.elbos[0], -torch.inf)
        self.elbos.append(nothing.index_copy(0, index, found.elbo).masked_fill(twin, -torch.inf))
        self.converged.append(torch.zeros_like(self.converged[0]).index_copy(0, index, found.converged))


def is_alone(path: Path, normals: Normals, starts: Tensor) -> tuple[Tensor, int]:
    """Return whether no ascent ends away from a proposal and not far below, ``(B,)``, and how many gradients that took."""
    ends = _ascended(path, normals, starts)
    counts = torch.ones_like(ends.settled[:1])
    return ~_is_other([normals], counts, ends).any(0), ends.evaluations


def _ascended(path: Path, normals: Normals, starts: Tensor) -> Ends:
    """Climb from every start, by steps as long as a quarter of the way to the fitted proposal, and shorter near a top."""
    u, size, steps = starts, torch.ones_like(starts[..., 0]), 0
    reach = _distances([normals], starts)[0] / 4.0 + 1.0
    log_density, gradient = path.joint(u, normals.loc.expand_as(u))
    while True:
        white = normals.whitened_gradient(gradient)
        slope = white.norm(dim=-1)
        settled = slope < 0.5 * math.sqrt(u.shape[-1]) + 0.5
        if steps == MAX_STEPS or bool((settled | (size < SHORTEST)).all()):
            return Ends(u, log_density, settled, len(starts) * (steps + 1))
        length = size * (reach / slope).clamp(max=1.0)
        new = u + normals.coloured(length[..., None] * white) - normals.loc
        found, there = path.joint(new, normals.loc.expand_as(u))
        kept, steps = found > log_density, steps + 1
        u, gradient = (torch.where(kept[..., None], a, b) for a, b in ((new, u), (there, gradient)))
        log_density, size = torch.where(kept, found, log_density), torch.where(kept, (2.0 * size).clamp(max=1.0), size / 4.0)


def _is_other(parts: Sequence[Normals], counts: Tensor, ends: Ends) -> Tensor:
    """Return which ends are away from all parts that count, and not known to be far below the highest, ``(S, B)``."""
    dimensions = ends.u.shape[-1]
    lowest = ends.log_density.nan_to_num(nan=-torch.inf).amax(0) - dimensions / 2.0 - NEGLIGIBLE
    distance = _distances(parts, ends.u).masked_fill(~counts[:, None], torch.inf).amin(0)
    return ~(distance <= math.sqrt(dimensions) + FAR) & ((ends.log_density > lowest) | ~ends.settled)


def _highest(among: Tensor, ends: Ends) -> tuple[Tensor, Tensor]:
    """Choose the highest of some ends of each datum: whether it has any, and which, both of shape ``(B,)``."""
    height, place = ends.log_density.masked_fill(~among, -torch.inf).max(0)
    return height > -torch.inf, place


def _taken(u: Tensor, place: Tensor) -> Tensor:
    """Take one of the positions ``(S, B, D)`` of each datum, shape ``(B, D)``."""
    return u.gather(0, place[None, :, None].expand(1, *u.shape[1:]))[0]


def _met_once(mixtures: NormalMixtures, ends: Ends) -> Tensor:
    """Return for which data a part beside the first is where a single ascent ended, shape ``(B,)``.

    The share of the modes that were met once estimates how likely it is that another ascent would end at an unknown one
    (Good, The Population Frequencies of Species, 1953).
    """
    held = mixtures.log_shares.isfinite()
    nearest = _distances(mixtures.parts, ends.u).masked_fill(~held[:, None], torch.inf).argmin(0)
    hits = torch.stack([(nearest == place).sum(0) for place in range(len(mixtures.parts))])
    return ((hits <= 1) & held)[1:].any(0)


def _distances(parts: Sequence[Normals], u: Tensor) -> Tensor:
    """Compute the distances of positions to the parts, in standard deviations of these, shape ``(J, S, B)``."""
    return torch.stack([part.whitened(u).norm(dim=-1) for part in parts])


def _mixed(parts: list[Normals], elbos: Tensor) -> NormalMixtures:
    """Mix the parts by their ELBOs, each with a share of about a tenth at least, but for those that hold next to nothing.

    Where all do, the first alone is taken.
    """
    elbos = torch.cat([elbos[:1].masked_fill(elbos.amax(0) == -torch.inf, 0.0), elbos[1:]])
    best = elbos.amax(0)
    logits = elbos.maximum(best - math.log(10.0)).masked_fill(elbos < best - NEGLIGIBLE, -torch.inf)
    held = [0, *(place for place in range(1, len(parts)) if bool(logits[place].isfinite().any()))]
    return NormalMixtures([parts[place] for place in held], logits[held].log_softmax(0))
