"""The data in batches, and the path of each."""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.evaluation.annealing.settings import AnnealingSettings
from pyrovae.runtime.batches import Columns, DataLike, as_data, batches
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.memory import MAX_ROWS
from pyrovae.runtime.progress import progress_bar
from pyrovae.runtime.seeds import seed_of, seeded, set_seed
from pyrovae.runtime.sharding import in_shards

WORTHWHILE = 2**22
"""The number of chains, data, temperatures and steps multiplied from which recording and fusing saves time."""

Result = TypeVar("Result")
Advance = Callable[[], Any]
"""What is called at each temperature, for the progress bar."""


def over_batches(
    pair: PairLike,
    data: DataLike,
    settings: AnnealingSettings,
    anneal: Callable[[Path, int, Advance], Result],
    directions: int = 1,
) -> list[Result]:
    """Anneal the path of each batch, with random numbers of its own; the processes of a group share the batches.

    Args:
        pair: the two programs.
        data: all data.
        settings: what chains are run, and how.
        anneal: is given a path, how many of its data count (the last batch is filled up), and what to call at each
            temperature.
        directions: how often it goes through the temperatures.
    """
    model, guide = programs(pair)
    columns = as_data(data)
    device = home(columns, settings.device)
    with evaluating(model, guide), seeded(settings.seed, device):
        batch_size = _batch_size(Pair(model, guide), columns, settings, device)
    total = directions * math.ceil(len(columns) / batch_size) * settings.temperatures
    compile = _is_worthwhile(settings, directions * len(columns)) if settings.compile is None else settings.compile

    def seeded_anneal(index: int, item: tuple[Path, int]) -> Result:
        path, kept = item
        set_seed(seed_of(settings.seed, index), path.batch.x.device)
        return anneal(path, kept, bar.update)

    progress = progress_bar(total=total, progress=settings.progress)
    with evaluating(model, guide), seeded(settings.seed, device), progress as bar:
        batched = batches(columns, batch_size, device=device)
        return in_shards(_paths(Pair(model, guide), batched, batch_size, settings, compile), seeded_anneal)


def _batch_size(pair: Pair, columns: Columns, settings: AnnealingSettings, device: torch.device) -> int:
    """Compute how many data, with their chains at every outcome of discrete latents, are in a batch of about one size."""

    def size(rows: int) -> int:
        most = max(1, (settings.max_rows or MAX_ROWS) // rows)
        return math.ceil(len(columns) / math.ceil(len(columns) / most))

    first = next(batches(columns, size(settings.num_chains), device=device))
    pair.meet(first)
    return size(settings.num_chains * Path(pair, first, 1, settings.start).latents.outcomes.number)


def _is_worthwhile(settings: AnnealingSettings, data: int) -> bool:
    return data * settings.num_chains * settings.temperatures * settings.steps >= WORTHWHILE


def _paths(
    pair: Pair, batched: Iterator[Columns[torch.Tensor]], size: int, settings: AnnealingSettings, compile: bool
) -> Iterator[tuple[Path, int]]:
    """The path of each batch, filled up to one size, and the number of its data."""
    path = None
    for batch in batched:
        full = batch.filled_up(size)
        if path is None:
            pair.meet(full)
            path = Path(pair, full, settings.num_chains, settings.start)
            if compile:
                path.compile()
        else:
            path = path.with_batch(full)
        yield path, len(batch)
