"""The data of an epoch, read in batches and sent to the device where they are needed."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pyrovae.data.split import Split
from pyrovae.runtime.batches import Batch, batches, prefetched
from pyrovae.runtime.processes import Processes


class Reader:
    """Reads splits in batches, as they are kept: not yet binarised.

    Args:
        device: where batches go; those that are elsewhere are sent ahead of their use.
        workers: processes that read ahead, for data that are not in memory.
        batch_size: data in a batch, of all processes together.
        processes: those that have shares of each batch.
    """

    def __init__(self, device: torch.device, workers: int, batch_size: int, processes: Processes) -> None:
        self.device = device
        self.batch_size = batch_size
        self._workers = workers
        self._processes = processes

    def is_here(self, split: Split) -> bool:
        """Whether the data of a split are in the device's memory."""
        return isinstance(split.x, Tensor) and split.x.device == self.device

    def first(self, split: Split) -> Batch:
        """Read the first batch, whole."""
        return next(self._read(split, torch.arange(min(len(split), self.batch_size)), len(split)))

    def train(self, split: Split, order: Tensor, first_batch: int) -> Iterator[Batch]:
        """Read this process' share of each batch in an order, from one of the batches on."""
        share, size = self._processes.share, self.batch_size
        own = [index[share(len(index))] for index in order.split(size)[first_batch:]]
        return self._read(split, torch.cat([order[:0], *own]), len(range(size)[share(size)]))

    def held_out(self, split: Split) -> Iterator[Batch]:
        """Read this process' share of a split, in batches."""
        alone = self._processes.number == 1
        own = None if alone else torch.arange(len(split))[self._processes.share(len(split))]
        return self._read(split, own, self.batch_size)

    def _read(self, split: Split, order: Tensor | None, batch_size: int) -> Iterator[Batch]:
        stream = batches(split.columns, batch_size, order=order, workers=self._workers)
        return stream if self.is_here(split) else prefetched(stream, self.device)
