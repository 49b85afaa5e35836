"""The data that the page about a run shows one by one, with their estimates, latents and pictures."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae.cli.figures import are_pictures, decoded, left_out
from pyrovae.cli.reopened import Reopened
from pyrovae.evaluation import LogLikelihood, latent_map, posterior_means
from pyrovae.evaluation.estimates.effort import Effort
from pyrovae.evaluation.estimates.trust import least_trusted_first
from pyrovae.report import Points, data_uris, shrunk
from pyrovae.report.words import number
from pyrovae.runtime.batches import Batch, Columns, batches

SHOWN = 2000
"""Largest number of data that are shown one by one."""
WORST = 50
"""Number of these that are the data least to be trusted, wherever they stand."""
SMALL, LARGE = 3072, 3 * 96**2
"""Largest counts of numbers in a picture under the mouse, and in one of a reconstruction or sample."""
PAIRS = 40
"""Number of reconstructions."""


def shown(estimate: LogLikelihood, available: int) -> np.ndarray:
    """The rows of the data that are shown one by one: the worst of all, and the first others."""
    worst = least_trusted_first(estimate.k_hat, estimate.trusted)[:WORST]
    others = np.setdiff1d(np.arange(available), worst)
    return np.sort(np.concatenate([worst, others[: SHOWN - len(worst)]]))


def points_of(
    opened: Reopened, tested: Columns, rows: np.ndarray, labels: np.ndarray | None, estimate: LogLikelihood
) -> tuple[Points, Tensor]:
    """The data of these rows, and the means of their latents."""
    drawable = are_pictures(opened.data.event_shape)
    means, pictures = [], []
    for batch in batches(tested, 250, order=torch.from_numpy(rows)):
        means.append(posterior_means(opened.vae, batch.plain()))
        pictures += [shrunk(_seen(batch), SMALL)] if drawable else []
    located = torch.cat(means)
    mapped = "latent_map" not in left_out(opened.data.event_shape, located)
    points = Points(
        index=rows,
        log_p=_of(estimate.log_p, rows),
        k_hat=_of(estimate.k_hat, rows),
        trusted=_of(estimate.trusted, rows) == 1.0,
        labels=labels,
        pictures=data_uris(np.concatenate(pictures)) if drawable else None,
        latent=latent_map(located) if mapped else None,
        answers=None if estimate.effort is None else _answers(estimate.effort, rows),
    )
    return points, located


def _answers(effort: Effort, rows: np.ndarray) -> list[str]:
    """What each of these rows was estimated by, in words; a dash for those that were not evaluated."""
    words = [
        f"{name}, {draws:,} {'chains' if name.startswith('annealed') else 'draws'}"
        for name, draws in zip(effort.proposal, effort.draws, strict=True)
    ]
    return [words[row] if row < len(words) else number(None) for row in rows]


def _seen(batch: Batch) -> Tensor:
    """The data, without the numbers that were not observed."""
    mask = batch.given.get("mask")
    return batch.x if mask is None else torch.where(mask, batch.x, torch.nan)


def _of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The values of these rows; none for those that were not evaluated."""
    return np.concatenate([values, np.full(max(0, rows.max() + 1 - len(values)), np.nan)])[rows]


def reconstructed_pairs(opened: Reopened, tested: Columns[Tensor | Dataset]) -> list[tuple[str, str]]:
    """The first data beside their reconstructions, as addresses of pictures."""
    batch = next(batches(tested, PAIRS))
    pairs = shrunk(torch.cat([_seen(batch), decoded(opened.vae, batch)]), LARGE)
    addresses = data_uris(pairs)
    return list(zip(addresses[: len(batch)], addresses[len(batch) :], strict=True))
