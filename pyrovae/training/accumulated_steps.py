"""Steps that are made of parts: of several batches, of the shares that processes have of a batch, or of both.

The parts' gradients are added up, and what follows, from clipping on, is done once a step. A process may have no share of a
batch, and takes part in the sum all the same.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.parameters import keeps_places, owner
from pyrovae.runtime.processes import Processes
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.batch_gradient import clipped
from pyrovae.training.compiled_gradient import CompiledGradient
from pyrovae.training.epoch_sums import Tally
from pyrovae.training.gradient_sum import GradientSum
from pyrovae.training.minibatch import Minibatch
from pyrovae.training.nonfinite import Failures, Fault
from pyrovae.training.optimizer_step import Update
from pyrovae.training.progress import Done, StopRequest

Part = tuple[int, Minibatch | None]
"""A batch of a step: the number of its data, and this process' share of it, if there is one."""


class AccumulatedSteps:
    """Steps whose gradient is the sum over parts.

    Args:
        gradient: of a part, not clipped, with a tally of its own.
        update: of the parameters.
        failures: what becomes of a step that is not finite.
        tally: that of the epoch.
        processes: those that have shares of a batch.
        stop: a wish to stop, which travels with the gradients.
        batch_size: data in a batch, of all processes together.
        accumulate: batches in a step.
        clip_norm: the largest norm of the whole gradient.
    """

    def __init__(
        self,
        gradient: CompiledGradient,
        update: Update,
        failures: Failures,
        tally: Tally,
        processes: Processes,
        stop: StopRequest,
        *,
        batch_size: int,
        accumulate: int,
        clip_norm: float | None,
    ) -> None:
        self._gradient = gradient
        self._update = update
        self._failures = failures
        self._tally = tally
        self._parts_tally = gradient.eager.tally
        self._sum = GradientSum(gradient.eager.parameters, processes)
        self._objective_state = gradient.eager.module.elbo.state
        self._processes = processes
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._clip_norm = clip_norm
        self._stop = stop

    def walk(self, data: Batch, order: Tensor, done: int) -> Iterator[Done]:
        """Step through data in memory, in this order, after so many batches."""
        batches = order.split(self._batch_size)[done:]
        own = [index[self._processes.share(len(index))] for index in batches]
        return self._steps((Minibatch.from_memory(data, index) for index in own if len(index)), len(order), done)

    def stream(self, batches: Iterable[Batch], size: int | None, done: int) -> Iterator[Done]:
        """Step through this process' shares of batches, read elsewhere, of an epoch of ``size`` data."""
        return self._steps(map(Minibatch.from_batch, batches), size, done)

    def _steps(self, shares: Iterator[Minibatch], size: int | None, done: int) -> Iterator[Done]:
        parts = self._parts(shares, size, done)
        for first in parts:
            yield self._step(chain([first], islice(parts, self._accumulate - 1)))

    def _parts(self, shares: Iterator[Minibatch], size: int | None, done: int) -> Iterator[Part]:
        """The batches of an epoch, of which this process may have no share."""
        if size is None:
            if self._processes.number > 1:
                raise InputError("size is None, and there are several processes; expected the number of data in the epoch")
            yield from ((len(own), own) for own in shares)
            return
        for start in range(done * self._batch_size, size, self._batch_size):
            number = min(self._batch_size, size - start)
            own = self._processes.share(number)
            yield number, next(shares) if own.stop > own.start else None

    def _step(self, parts: Iterable[Part]) -> Done:
        """Make one step that is looked at before parameters move."""
        buffers = self._failures.buffers()
        done, fault = self._add_up(parts)
        failed, self._stop.agreed = self._sum.exchange(fault is not None, self._stop.wished)
        gradients, norm = clipped(self._sum.mean(done.data), self._clip_norm)
        finite = not failed and bool(norm.isfinite())
        self._tally.add_accumulated(self._parts_tally, done.data, finite)
        if finite:
            self._update(gradients)
        else:
            self._failures.settle(fault, buffers)
        return done

    def _add_up(self, parts: Iterable[Part]) -> tuple[Done, Fault | None]:
        """Add up the gradients of the parts; return how many there are, and the first one that is not finite."""
        self._parts_tally.clear()
        self._sum.clear()
        counted = Copies(() if self._objective_state is None else self._objective_state.buffers())
        done, fault = Done(0, 0), None
        for number, own in parts:
            if done.batches:
                counted.restore()  # what an objective keeps from step to step moves on once a step
            if own is not None:
                fault = self._add(own, fault)
            done = Done(done.batches + 1, done.data + number)
        return done, fault

    def _add(self, own: Minibatch, fault: Fault | None) -> Fault | None:
        noise = GeneratorState(self._gradient.eager.device)
        self._sum.add(self._gradient(own), len(own))
        return fault or (Fault(own.batch(), noise) if self._parts_tally.failed else None)


def require_parts(module: ObjectiveModule, batch_size: int, accumulate: int, processes: Processes) -> None:
    """Raise an InputError where steps may not be made of parts, or not of these."""
    found = f"accumulate is {accumulate}" if accumulate > 1 else f"there are {processes.number} processes"
    if module.elbo.coupled:
        raise InputError(
            f"{type(module.elbo).__name__} couples the data of a batch, so that a step is not the sum of its parts, and "
            f"{found}; expected one batch a step in one process: take a larger batch_size, or an objective that takes each "
            "datum by itself"
        )
    if keeps_places(module.guide):
        raise InputError(
            f"{type(owner(module.guide)).__name__} keeps per-datum parameters by place in the batch, of which it would "
            f"see a share, since {found}; train in one process with accumulate=1, or take an amortized guide"
        )
    if batch_size < processes.number:
        raise InputError(
            f"batch_size is {batch_size}, which {processes.number} processes have to share; expected at least one datum for "
            "each: take a larger batch_size, or fewer processes"
        )
    processes.require_equal(dict([*module.named_parameters(), *module.named_buffers()]))
