"""The bar that shows how far a long call has come."""

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm

from pyrovae.runtime.processes import Processes

DELAY = 2.0
"""Seconds that a call runs before its bar appears."""


def progress_bar(items: Iterable[Any] | None = None, *, total: int, progress: bool) -> tqdm:
    """Make a bar on stderr over items, or one to ``update``; of several processes that share the work the first shows it."""
    return tqdm(items, total=total, delay=DELAY, disable=not progress or Processes().rank > 0)
