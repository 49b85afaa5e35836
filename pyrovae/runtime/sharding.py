"""Work that several processes share, with the results in each of them."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import distributed

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_shards(items: Iterable[Item], work: Callable[[int, Item], Result]) -> list[Result]:
    """Run ``work(index, item)`` on each item in one process of the group; returns all results in order.

    Without a process group this is a loop. With one, every process must call it with the same items.

    Raises:
        Exception: what the work of any process raised, in each of them, so that none waits for another.
    """
    group = distributed.is_available() and distributed.is_initialized()
    rank, number = (distributed.get_rank(), distributed.get_world_size()) if group else (0, 1)
    mine: dict[int, Result] = {}
    failed: Exception | None = None
    try:
        for index, item in enumerate(items):
            if index % number == rank:
                mine[index] = work(index, item)
    except Exception as error:
        if number == 1:
            raise
        failed = error
    done = mine if number == 1 else _gathered(mine, failed)
    return [done[index] for index in sorted(done)]


def _gathered(mine: dict[int, Result], failed: Exception | None) -> dict[int, Result]:
    everything: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everything, (mine, failed))
    for _, error in everything:
        if error is not None:
            raise error
    return {index: result for part, _ in everything for index, result in part.items()}
