"""Steps of one batch each, in one process: on CUDA replayed, if they can be captured, and else one by one."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from pyrovae.runtime.batches import Batch
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.captured_steps import CapturedSteps
from pyrovae.training.compiled_gradient import CompiledGradient
from pyrovae.training.minibatch import Minibatch
from pyrovae.training.nonfinite import Failures, Fault
from pyrovae.training.optimizer_step import Update
from pyrovae.training.progress import Done


class SingleSteps:
    """Steps whose gradient is that of one batch.

    Args:
        gradient: of a batch, clipped; it adds the batch to the tally of the epoch.
        update: of the parameters.
        failures: what becomes of a step that is not finite.
        captured: the same steps, replayed.
        batch_size: data in a batch; the last of an epoch may have fewer.
    """

    def __init__(
        self,
        gradient: CompiledGradient,
        update: Update,
        failures: Failures,
        captured: CapturedSteps,
        *,
        batch_size: int,
    ) -> None:
        self._gradient = gradient
        self._update = update
        self._failures = failures
        self._batch_size = batch_size
        self._captured = captured

    def walk(self, data: Batch, order: Tensor, done: int) -> Iterator[Done]:
        """Step through data in memory, in this order, after so many batches."""
        full = len(order) // self._batch_size
        rows = order[: full * self._batch_size].view(full, self._batch_size)
        if done < full and self._captured.can_capture(Minibatch.from_memory(data, rows[0])):
            yield from self._captured.walk(data, rows, done)
            done = full
        for index in order.split(self._batch_size)[done:]:
            yield self._step(Minibatch.from_memory(data, index))

    def stream(self, batches: Iterable[Batch], size: int | None, done: int) -> Iterator[Done]:
        """Step through batches that were read elsewhere."""
        for batch in batches:
            minibatch = Minibatch.from_batch(batch)
            full = len(batch) == self._batch_size
            yield self._captured.step(batch) if full and self._captured.can_capture(minibatch) else self._step(minibatch)

    def _step(self, minibatch: Minibatch) -> Done:
        """Make one step that is looked at before parameters move."""
        if not self._failures.ended():
            noise, buffers = GeneratorState(self._gradient.eager.device), self._failures.buffers()
            gradients = self._gradient(minibatch)
            if self._failures.failed:
                self._failures.settle(Fault(minibatch.batch(), noise), buffers)
            else:
                self._update(gradients)
        return Done(1, len(minibatch))
