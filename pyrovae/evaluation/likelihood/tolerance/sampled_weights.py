"""Log weights of fitted proposals, as many for each datum as it needs."""

import torch
from torch import Tensor

from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.fitting.fitted_mixture import mixture_log_weights
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures

PIECE = 100
"""Draws of one datum that are made together; a pass of the programs takes such pieces of as many data as fit."""


def sampled_weights(
    path: Path, fitted: NormalMixtures, parts: tuple[Start, ...], counts: Tensor, max_rows: int, whole: bool
) -> list[Tensor]:
    """Draw the log weights of each datum, float64, of its own number: multiples of 100.

    Args:
        path: the densities of the data.
        fitted: their fitted proposals.
        parts: what is mixed with these.
        counts: how many draws each of the data needs, 0 for none; shape ``(B,)``.
        max_rows: the most draws of one pass of the programs.
        whole: whether all data must go together.
    """
    pieces = counts // PIECE
    if whole:
        pieces = pieces.amax().expand_as(pieces)
    places = torch.arange(len(counts), device=counts.device)
    order = places.repeat(int(pieces.amax())) if whole else places.repeat_interleave(pieces)
    drawn = []
    for place in order.split(len(counts) if whole else max(1, max_rows // PIECE)):
        part = path.with_batch(path.batch.rows(place))
        drawn.append(mixture_log_weights(part, fitted.rows(place), parts, PIECE).T)
    weights = torch.cat(drawn)
    return [weights[order == place].flatten()[:count] for place, count in enumerate(counts.tolist())]
