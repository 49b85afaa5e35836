"""Training steps that are captured in a CUDA graph, to be replayed without their Python."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.compiling.cuda_graph import Captured
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.copies import Copies
from pyrovae.training.compiled_gradient import CompiledGradient
from pyrovae.training.minibatch import Minibatch
from pyrovae.training.nonfinite import Failures
from pyrovae.training.optimizer_step import Update
from pyrovae.training.progress import Done

REPLAYS = 128
"""Steps that are replayed before Python has a word again."""


class _Step(NamedTuple):
    """A step of no arguments, and the tensors that it reads."""

    run: Callable[[], None]
    inputs: list[Tensor]


class CapturedSteps:
    """Steps of one kind at a time, captured; where one fails, it changes nothing, on the device.

    Args:
        gradient: of a minibatch, fused.
        update: of the parameters, by fused kernels.
        failures: the flag of a step that failed, and the module whose buffers such a step must leave alone.
    """

    def __init__(self, gradient: CompiledGradient, update: Update, failures: Failures) -> None:
        self._gradient = gradient
        self._update = update
        self._failures = failures
        self._captured: dict[Any, tuple[Captured, list[Tensor]]] = {}

    def can_capture(self, minibatch: Minibatch) -> bool:
        """Whether the step on such a minibatch can be captured."""
        return self._update.capturable and self._gradient.fused(minibatch) is not None

    def clear(self) -> None:
        """Free the graph."""
        self._captured = {}

    def walk(self, data: Batch, order: Tensor, done: int) -> Iterator[Done]:
        """Replay the steps on data in memory that come after so many; ``order`` has the rows of each, shape ``(S, B)``."""
        captured = self._on_rows(data, order, done)
        while done < len(order):
            steps = min(REPLAYS, len(order) - done)
            captured.run(steps)
            done += steps
            yield Done(steps, steps * order.shape[1])

    def step(self, batch: Batch) -> Done:
        """Replay the step on one batch that was read."""
        self._on_batch(batch).run(1)
        return Done(1, len(batch))

    def _on_rows(self, data: Batch, order: Tensor, done: int) -> Captured:
        """The steps on the rows of data, each of which reads its place in the order on the device."""
        fused: Any = self._gradient.fused(Minibatch.from_memory(data, order[0]))

        def make() -> _Step:
            indices, place = torch.empty_like(order), torch.zeros(1, dtype=torch.int64, device=order.device)

            def step() -> None:
                self._update(fused(*data.tensors, indices.index_select(0, place).squeeze(0)))
                place.add_(1)

            return _Step(step, [indices, place])

        held = tuple((column.data_ptr(), column.shape, column.dtype) for column in data.tensors)
        captured, (indices, place) = self._capture(("rows", held, order.shape), make)
        indices.copy_(order)
        place.fill_(done)
        return captured

    def _on_batch(self, batch: Batch) -> Captured:
        """The step on a batch, which is copied to where the step reads it."""
        fused: Any = self._gradient.fused(Minibatch.from_batch(batch))

        def make() -> _Step:
            inputs = [torch.empty_like(column) for column in batch.tensors]
            return _Step(lambda: self._update(fused(*inputs)), inputs)

        captured, inputs = self._capture(("batch", tuple((column.shape, column.dtype) for column in batch.tensors)), make)
        for place, column in zip(inputs, batch.tensors, strict=True):
            place.copy_(column)
        return captured

    def _capture(self, kind: Any, make: Callable[[], _Step]) -> tuple[Captured, list[Tensor]]:
        """Capture a step of this kind, unless it is the one that was captured last."""
        self._failures.replayed = True
        if kind not in self._captured:
            failed = self._failures.failed
            self._update.skip_where(failed)
            step = make()
            self._captured = {kind: (Captured(self._guarded(step.run), failed.device), step.inputs)}
        return self._captured[kind]

    def _guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        """The step, after which buffers are put back where it failed and is to be skipped."""
        module = self._failures.guarded
        if module is None:
            return step

        def guarded_step() -> None:
            before = Copies(module.buffers())
            step()
            before.restore(self._failures.failed)

        return guarded_step
