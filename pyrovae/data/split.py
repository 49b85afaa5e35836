"""One part of a data set, as batches to train on and as the data that are evaluated."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae.data.binarize import Binarize, fixed_draws
from pyrovae.data.lazy import Binarized
from pyrovae.errors import InputError
from pyrovae.runtime.batches import Batch, Columns, batches, size


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A part of a data set.

    Args:
        x: float32, shape ``(N, *event_shape)`` in memory, or a ``Dataset`` of tensors of shape ``event_shape`` that
            reads as it goes. For ``dynamic`` these are the probabilities, otherwise the data as they are used.
        labels: int64, shape ``(N,)``, or None.
        index: int64, shape ``(N,)``: where the data stand in their source.
        binarize: what each use makes of ``x``.
        given: what the programs are given beside ``x``, by the names of their arguments: ``c``, say.
    """

    x: Tensor | Dataset[Tensor]
    labels: Tensor | None
    index: np.ndarray
    binarize: Binarize
    given: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return size(self.x)

    @property
    def columns(self) -> Columns[Any]:
        """The data as they are stored, with what is given beside them."""
        return Columns(self.x, self.given)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        workers: int = 0,
    ) -> Iterator[Any]:
        """Yield batches of shape ``(B, *event_shape)`` that hold each datum once, the last one short.

        In ``dynamic`` mode each batch is drawn afresh on its own device. Where something is given beside the data, a batch
        is a mapping that has the data under ``x``.

        Args:
            batch_size: the number of data in a batch.
            shuffle: whether the order is random; it is drawn at once, when the method is called. A batch of all data
                is left in its order.
            generator: of the order and of the draws; torch's own if None. Draws on a device other than the
                generator's come from a generator there, seeded from this one.
            device: where the batches go; where the data are if None.
            workers: the processes that read ahead, for data that are not in memory.

        Raises:
            InputError: for a batch size below one.
        """
        read = self.read(batch_size, shuffle=shuffle, generator=generator, device=device, workers=workers)
        return (batch.plain() for batch in read)

    def read(
        self,
        batch_size: int,
        *,
        shuffle: bool,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        workers: int = 0,
    ) -> Iterator[Batch]:
        """Yield the batches of :meth:`batches` as columns, whether or not something is given beside the data."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected one or more: pass a positive batch_size")
        order = _random_order(len(self), generator) if shuffle and batch_size < len(self) else None
        loading = None if generator is None else generator.clone_state()
        options = {"order": order, "device": device, "workers": workers, "generator": loading}
        return self._drawn(generator, batch_size, **options)

    def _drawn(self, draws: torch.Generator | None, batch_size: int, **options: Any) -> Iterator[Batch]:
        for batch in batches(self.columns, batch_size, **options):
            draws = _on_device(draws, batch.x.device)
            yield replace(batch, x=self.binarize.draw(batch.x, draws))

    def fixed_draw(self, seed: int = 0) -> Any:
        """Return the data as they are evaluated, in their order.

        For ``dynamic`` this is one draw for each datum, the same for the same seed wherever it is made: the data that
        ``fixed(seed)`` would hold. Otherwise ``x`` itself. In memory if ``x`` is, otherwise read as it goes. Where something
        is given beside the data, a mapping that has the draw under ``x``.

        Raises:
            InputError: for a negative seed.
        """
        fixed = Binarize("fixed", seed)
        return Columns(self._fixed(fixed), self.given).plain()

    def _fixed(self, fixed: Binarize) -> Tensor | Dataset:
        if self.binarize.kind != "dynamic":
            return self.x
        if isinstance(self.x, Tensor):
            return fixed_draws(self.x, self.index, fixed.seed)
        return Binarized(self.x, self.index, fixed)

    def to(self, device: torch.device | str) -> "Split":
        """Move the split's tensors to a device.

        Raises:
            InputError: if the data are not in memory.
        """
        if not isinstance(self.x, Tensor):
            raise InputError(
                f"the split is read as it goes; expected one in memory to put on {device}: pass in_memory=True to the "
                f"data set, or device={str(device)!r} to batches"
            )
        labels = None if self.labels is None else self.labels.to(device)
        columns = self.columns.to(device)
        return replace(self, x=columns.x, labels=labels, given=columns.given)


def _random_order(n: int, generator: torch.Generator | None) -> Tensor:
    device = None if generator is None else generator.device
    return torch.randperm(n, generator=generator, device=device)


def _on_device(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """Return the generator itself if it lives on the device (or is torch's own), else one there, seeded from it."""
    if generator is None or generator.device == device:
        return generator
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))
