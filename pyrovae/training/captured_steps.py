"""Training steps that are captured in a CUDA graph, to be replayed without their Python."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.compiling.cuda_graph import Captured
from pyrovae.runtime.copies import Copies
from pyrovae.training.batch_gradient import BatchGradient, as_given, in_memory
from pyrovae.training.optimizer_step import Update

Replayable = tuple[Callable[[], None], list[Tensor]]
"""A step of no arguments, and the tensors that it reads."""


class Replays:
    """One kind of step at a time, captured: what it is told on the device, it reads there.

    Args:
        gradient: of a batch, fused.
        update: of the parameters, by fused kernels.
        failed: on the device, 1 where a step must leave everything alone.
        guarded: where steps may be left out, the module whose buffers are put back, on the device, after one that is.
    """

    def __init__(self, gradient: BatchGradient, update: Update, failed: Tensor, guarded: nn.Module | None) -> None:
        self._gradient = gradient
        self._update = update
        self._failed = failed
        self._guarded = guarded
        self._captured: dict[Any, tuple[Captured, list[Tensor]]] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def clear(self) -> None:
        """Let go of the graph."""
        self._captured = {}

    def along(self, data: tuple[Tensor, ...], order: Tensor, done: int) -> Captured:
        """The steps on data in memory, one for each row of ``order``, that come after so many."""
        fused: Any = self._gradient.fused(in_memory, *data, order[0])

        def make() -> Replayable:
            indices, place = torch.empty_like(order), torch.zeros(1, dtype=torch.int64, device=order.device)

            def step() -> None:
                self._update(fused(*data, indices.index_select(0, place).squeeze(0)))
                place.add_(1)

            return step, [indices, place]

        held = tuple((column.data_ptr(), column.shape, column.dtype) for column in data)
        captured, (indices, place) = self._capture((in_memory, held, order.shape), make)
        indices.copy_(order)
        place.fill_(done)
        return captured

    def on(self, batch: tuple[Tensor, ...]) -> Captured:
        """The step on one batch."""
        fused: Any = self._gradient.fused(as_given, *batch)

        def make() -> Replayable:
            here = [torch.empty_like(column) for column in batch]
            return lambda: self._update(fused(*here)), here

        captured, here = self._capture((as_given, tuple((column.shape, column.dtype) for column in batch)), make)
        for place, column in zip(here, batch, strict=True):
            place.copy_(column)
        return captured

    def _capture(self, what: Any, make: Callable[[], Replayable]) -> tuple[Captured, list[Tensor]]:
        """A step, captured, and the tensors that it reads."""
        if what not in self._captured:
            self._update.unless(self._failed)
            step, tensors = make()
            self._captured = {what: (Captured(self._keeping_buffers(step), self._failed.device), tensors)}
        return self._captured[what]

    def _keeping_buffers(self, step: Callable[[], None]) -> Callable[[], None]:
        module = self._guarded
        if module is None:
            return step

        def kept_step() -> None:
            kept = Copies(module.buffers())
            step()
            kept.restore(self._failed)

        return kept_step
