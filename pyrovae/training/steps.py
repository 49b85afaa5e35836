"""The steps of a training run, epoch by epoch: over data in memory, or over batches that are read.

Eagerly a step is what it looks like. Compiled, all of it up to the update is one fused graph, and the update is torch's
own fused optimiser, but for Adam's on a CPU (:mod:`~pyrovae.compiling.adam_kernel`). On CUDA both are captured in a CUDA
graph, and nothing waits for the device before an epoch is over. The random numbers are the same whichever way a step runs.
Compiled are steps on batches of one size; the last of an epoch may be short, and eager.

**Where to read on.** A step is one batch (:mod:`~pyrovae.training.single_steps`; replayed on CUDA,
:mod:`~pyrovae.training.captured_steps`), or is made of parts (:mod:`~pyrovae.training.accumulated_steps`). Either takes a
gradient (:mod:`~pyrovae.training.compiled_gradient`) and an update (:mod:`~pyrovae.training.optimizer_step`), and asks what
becomes of a step that is not finite (:mod:`~pyrovae.training.nonfinite`).

**Several batches a step.** With ``accumulate``, the gradient of so many batches makes one step: it is that of a batch
which is so many times as large, in the memory of one, and is clipped as a whole. The last step of an epoch may have
fewer batches, and a short batch counts by its data. Batch normalisation alone sees the batches one by one.

**Several processes.** Where ``torch.distributed`` has a process group, a batch is that of all processes together. Each
computes its share of the rows, and the gradient is that of the whole batch, so that parameters stay the same in all of them
to the last bit; each has random numbers of its own. Batch normalisation sees shares, and its statistics, like all buffers,
are at the end of an epoch those of process 0.

**Modes.** Networks train but for those parts that are in evaluation mode while a whole network is not: somebody has
frozen a batch normalisation, say, by ``eval()``. Where all networks are in evaluation mode, all train.

**Steps that are not finite.** Such a step moves nothing. With ``nonfinite="skip"`` the run goes on without it: means
are of the other data, buffers are put back, and only the random numbers have moved on.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyrovae.errors import InputError, require_positive
from pyrovae.internals.torch_internals import has_accumulation_hooks
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.processes import Processes
from pyrovae.training.accumulated_steps import AccumulatedSteps, require_parts
from pyrovae.training.batch_gradient import BatchGradient, unchanged
from pyrovae.training.captured_steps import CapturedSteps
from pyrovae.training.compiled_gradient import CompiledGradient
from pyrovae.training.ema import Averages, by_name
from pyrovae.training.epoch_sums import Tally
from pyrovae.training.means import Means
from pyrovae.training.minibatch import Minibatch
from pyrovae.training.nonfinite import Failures, NonFinite, require_known
from pyrovae.training.optimizer_step import Update, trained_parameters
from pyrovae.training.progress import Progress, StopRequest
from pyrovae.training.single_steps import SingleSteps


class Steps:
    """The steps of a training run, an epoch at a time.

    Args:
        module: the objective on the pair, started.
        optimizer: of its parameters; it is made to use torch's fused kernels where it has them and was not told otherwise.
        batch_size: data in a batch.
        draw: what each use makes of rows of the data, such as their binarisation.
        clip_norm: the largest norm of the gradient, all parameters together; a longer one is scaled down to it.
        compile: whether to fuse the steps; a program that cannot be recorded runs eagerly, after a warning.
        accumulate: batches in a step.
        ema: the decay of the averages, between 0 and 1; none are kept if not given.
        nonfinite: whether a step whose loss or gradient is not finite ends the run, or is skipped.

    Attributes:
        averages: the exponential moving average of the parameters, where it is kept.
        gradient: of a batch.
        processes: those that train together.
        progress: how far the epoch is, and what is called between steps.
        stop: a wish to stop, of which all processes learn.
        update: of the parameters.

    Raises:
        InputError: for numbers out of range; where a step has parts, for an objective that couples the data of a batch;
            where processes do not begin with the same parameters and buffers.
    """

    def __init__(
        self,
        module: ObjectiveModule,
        optimizer: Optimizer,
        *,
        batch_size: int,
        draw: Callable[[Tensor], Tensor] = unchanged,
        clip_norm: float | None = None,
        compile: bool = True,
        accumulate: int = 1,
        ema: float | None = None,
        nonfinite: NonFinite = "stop",
    ) -> None:
        require_positive(batch_size=batch_size, accumulate=accumulate)
        require_known(nonfinite)
        _require_no_hooks(module)
        self.module = module
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.skips = nonfinite == "skip"
        self.processes = Processes()
        self.stop = StopRequest(self.processes)
        self._in_parts = accumulate > 1 or self.processes.number > 1
        self._resting = module.resting()
        parameters = trained_parameters(optimizer)
        self._device = parameters[0].device
        self.averages = None if ema is None else Averages(ema, by_name(module, parameters))
        self.update = Update(module, optimizer, self.averages, compile=compile)
        self.progress = Progress(Tally.zero(module.elbo, self._device), self.averages, self.processes)
        gradient = self._eager_gradient(draw, clip_norm)
        own = self.processes.share(batch_size)
        self.gradient = CompiledGradient(gradient, size=own.stop - own.start, compile=compile)
        self._failures = Failures(gradient, self.progress.tally, self.processes, skips=self.skips)
        self._captured = CapturedSteps(self.gradient, self.update, self._failures)
        self._mode = self._make_mode(clip_norm)

    def averaged(self) -> AbstractContextManager[None]:
        """Give the parameters the values of their averages meanwhile, in the memory that is theirs, if these are kept."""
        return nullcontext() if self.averages is None else self.averages.applied()

    def walk(self, data: Batch, order: Tensor | None = None) -> Means:
        """Make one step for each batch of data held in memory, on the parameters' device, in this order or as they lie.

        Where there are several processes, each is called with the same data in the same order.

        Raises:
            NonFiniteError: for a loss or a gradient that is not finite, naming the site; with ``nonfinite="skip"``, where
                no step of the epoch was finite.
        """
        order = (torch.arange(len(data)) if order is None else order).to(self._device)
        size = self.batch_size
        self._begin(lambda step: data.rows(order[step * size :][:size]))
        if (done := self.progress.done) < (full := len(order) // size):
            first = Minibatch.from_memory(data, order[:size][self.processes.share(size)])
            self.gradient.check_if_due(full - done, first)
        self.progress.follow(self._mode.walk(data, order, done))
        return self._end(len(order))

    def stream(self, batches: Iterable[Batch], size: int | None = None) -> Means:
        """Make one step for each batch, wherever they come from; the same errors. Those that are done are not among them.

        Args:
            batches: where there are several processes, this one's share of each, unless it has no rows.
            size: the number of data in the whole epoch; needed where there are several processes, and to go on in one.
        """
        self._begin(lambda _: None)
        count = self.progress.follow(self._mode.stream(self._checked(batches), size, self.progress.done))
        return self._end(count if size is None else size)

    def state(self) -> dict[str, Any]:
        """Return the state of :attr:`progress`, for ``progress.restore``. All processes must call it, and have the same.

        Raises:
            NonFiniteError: where a step that was replayed had a loss or a gradient that was not finite.
        """
        self._failures.require_replays()
        return self.progress.state()

    def close(self) -> None:
        """Free graphs, and the memory that is theirs."""
        self._captured.clear()
        self.update.close()

    def _begin(self, batch_of_step: Callable[[int], Batch | None]) -> None:
        """Begin an epoch, or take up the one that was restored."""
        self.module.train_but(self._resting)
        self.gradient.update_buffers()
        self.progress.begin()
        self._failures.begin(batch_of_step)
        if self.update.settings_changed():
            self._captured.clear()

    def _end(self, data: int) -> Means:
        """Return the means of an epoch over so many data."""
        self._failures.require_replays()
        self._failures.require_a_finite_step()
        means = self.progress.means(self.module.elbo, data, self._device)
        self.processes.take_from_first([*self.module.buffers()], self._device)
        return means

    def _checked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches; before some of them recorded programs are compared with the programs as they are."""
        for batch in batches:
            if len(batch) == self.gradient.size:
                self.gradient.check_if_due(1, Minibatch.from_batch(batch))
            yield batch

    def _eager_gradient(self, draw: Callable[[Tensor], Tensor], clip_norm: float | None) -> BatchGradient:
        """Make the gradient of a step, or of a part of one, which is clipped and skipped with the other parts."""
        module, parameters = self.module, self.update.parameters
        if self._in_parts:
            return BatchGradient(module, parameters, Tally.zero(module.elbo, self._device), draw=draw)
        return BatchGradient(module, parameters, self.progress.tally, draw=draw, clip_norm=clip_norm, skips=self.skips)

    def _make_mode(self, clip_norm: float | None) -> SingleSteps | AccumulatedSteps:
        """Make steps of one batch each, or of parts."""
        parts, size = (self.gradient, self.update, self._failures), self.batch_size
        if not self._in_parts:
            return SingleSteps(*parts, self._captured, batch_size=size)
        require_parts(self.module, size, self.accumulate, self.processes)
        parts = *parts, self.progress.tally, self.processes, self.stop
        return AccumulatedSteps(*parts, batch_size=size, accumulate=self.accumulate, clip_norm=clip_norm)


def _require_no_hooks(module: ObjectiveModule) -> None:
    """Raise an InputError for hooks that no step would call."""
    hooked = [name for name, value in module.named_parameters() if has_accumulation_hooks(value)]
    if hooked:
        raise InputError(
            f"{hooked[0]} has a hook for the time when its gradient was accumulated, and gradients are not accumulated "
            "here; take register_hook, or SVI"
        )
