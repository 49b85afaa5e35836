"""Training steps: rows of the data, their binarisation, the loss, its gradient, clipping and the optimiser's update.

Eagerly a step is what it looks like. Compiled, all of it up to the update is one fused graph, and the update is torch's
own fused optimiser. On CUDA both are captured in a CUDA graph, and nothing waits for the device before an epoch is over.
The random numbers are the same whichever way a step runs.

A step may be made of parts: of several batches, one after another, or of the shares that several processes have of a
batch. Then each part is fused by itself, and what the parts have in common, from the sum of their gradients on, is not.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any, NoReturn, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyrovae.errors import InputError, require_positive
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.parameters import keeps_places, owner
from pyrovae.runtime.processes import Processes
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.accumulation import Part, Parted
from pyrovae.training.batch_gradient import BatchGradient, Rows, as_given, as_it_is, in_memory
from pyrovae.training.captured_steps import Replays
from pyrovae.training.ema import Averages, names
from pyrovae.training.epoch_sums import NonFinite, Tally
from pyrovae.training.means import Means
from pyrovae.training.nonfinite import Fault, refuse
from pyrovae.training.optimizer_step import Update

CHECK_EVERY = 100
"""Steps after which a recorded step is compared with an eager one again."""
REPLAYS = 128
"""Steps that are replayed before Python has a word again."""


class Steps:
    r"""The steps of a training run. Compiled are those on batches of one size; the last of an epoch may be short, and eager.

    **Several batches a step.** With ``accumulate``, the gradient of so many batches makes one step: it is that of a batch
    which is so many times as large, in the memory of one, and is clipped as a whole. The last step of an epoch may have
    fewer batches, and a short batch counts by its data. Batch normalisation alone sees the batches one by one.

    **Several processes.** Where ``torch.distributed`` has a process group, a batch is that of all processes together. Each
    computes its share of the rows (:meth:`share`), and the gradient is that of the whole batch, so that parameters stay the
    same in all of them to the last bit; each has random numbers of its own. Batch normalisation sees shares, and its
    statistics, like all buffers, are at the end of an epoch those of process 0.

    **Modes.** Networks train but for those parts that are in evaluation mode while a whole network is not: somebody has
    frozen a batch normalisation, say, by ``eval()``. Where all networks are in evaluation mode, all train.

    **Averages.** With ``ema``, the exponential moving average of the parameters (:class:`Averages`), which they hold within
    :meth:`averaged`.

    **Steps that are not finite.** Such a step moves nothing. With ``nonfinite="skip"`` the run goes on without it: means
    are of the other data, buffers are put back, and only the random numbers have moved on.

    Args:
        module: the objective on the pair, started.
        optimizer: of its parameters; it is made to use torch's fused kernels where it has them and was not told otherwise.
        batch_size: data in a batch.
        draw: what each use makes of rows of the data, such as their binarisation.
        clip_norm: the largest norm of the gradient, all parameters together; a longer one is scaled down to it.
        compile: whether to fuse the steps; a program that cannot be recorded runs eagerly, after a warning.
        accumulate: batches in a step.
        ema: the decay of the averages, between 0 and 1; none are kept if not given.
        nonfinite: whether a step whose loss or gradient is not finite ends the run, or is left out.

    Attributes:
        between: called between steps: after each, or, where steps are replayed, after 128.
        done: the number of batches done in this epoch.
        processes: those that train together.
        stop_agreed: whether a process wished to stop before the last step; the same in all of them after each step.

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
        draw: Callable[[Tensor], Tensor] = as_it_is,
        clip_norm: float | None = None,
        compile: bool = True,
        accumulate: int = 1,
        ema: float | None = None,
        nonfinite: NonFinite = "stop",
    ) -> None:
        require_positive(batch_size=batch_size, accumulate=accumulate)
        _require_known(nonfinite)
        self.module = module
        self._resting = module.resting()
        _require_no_hooks(module)
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.processes = Processes()
        self.between: Callable[[], None] = lambda: None
        self.done = 0
        self.stop_agreed = False
        self._update = Update(module, optimizer, compile=compile)
        self._device = self._update.parameters[0].device
        self._averages = None if ema is None else Averages(ema, names(module, self._update.parameters))
        self._update.averages = self._averages
        self._skips = nonfinite == "skip"
        self._tally = Tally.zero(module.elbo, self._device)
        parted = accumulate > 1 or self.processes.number > 1
        if parted:
            _require_parts(module, batch_size, accumulate, self.processes)
        own = self.share(batch_size)
        self._own_size = own.stop - own.start
        self._gradient = BatchGradient(
            module,
            self._update.parameters,
            Tally.zero(module.elbo, self._device) if parted else self._tally,
            size=self._own_size,
            draw=draw,
            clip_norm=None if parted else clip_norm,
            leave_out=self._skips and not parted,
            compile=compile,
        )
        self._parted = Parted(module, self._gradient, clip_norm, self.processes) if parted else None
        self._capturable = self._update.capturable and not parted
        self._replays = Replays(self._gradient, self._update, self._tally.failed, module if self._skips else None)
        self._unchecked = CHECK_EVERY
        self._restored: dict[str, Any] | None = None
        self._wish = False
        self._fault: Fault | None = None
        self._rows: Callable[[int], Sequence[Tensor] | None] = lambda _: None

    @property
    def compile(self) -> bool:
        """Whether steps are fused, as far as is known."""
        return self._gradient.compile

    @property
    def seconds_to_first_step(self) -> float | None:
        """From when this was made to the end of the first step: recording and fusing, mostly."""
        return self._update.seconds_to_first

    @property
    def skipped(self) -> int:
        """The number of steps of this epoch, or the last, that were left out."""
        return int(self._tally.skipped)

    def share(self, rows: int) -> slice:
        """This process' rows of a batch of so many: contiguous, and perhaps none."""
        return self.processes.share(rows)

    @property
    def averages(self) -> Averages | None:
        """The averages of the parameters, where they are kept."""
        return self._averages

    @property
    def skips(self) -> bool:
        """Whether steps that are not finite are left out."""
        return self._skips

    def averaged(self) -> AbstractContextManager[None]:
        """Within it, the parameters hold their averages, in the memory that is theirs; without ``ema``, they stay."""
        return nullcontext() if self._averages is None else self._averages.held()

    def wish_to_stop(self) -> None:
        """Say that this process wishes to stop, which all learn with the next step, by ``stop_agreed``."""
        self._wish = True
        self.stop_agreed |= self.processes.number == 1

    def walk(self, data: Batch, order: Tensor | None = None) -> Means:
        """One step for each batch of data held in memory, on the parameters' device, in this order or as they lie.

        Where there are several processes, each is called with the same data in the same order.

        Raises:
            NonFiniteError: for a loss or a gradient that is not finite, naming the site; with ``nonfinite="skip"``, where
                no step of the epoch was finite.
        """
        order = torch.arange(len(data)) if order is None else order
        order = order.to(self._device)
        batches = self._shares(order)
        full = len(order) // self.batch_size
        self._begin(lambda step: data.rows(order[step * self.batch_size :][: self.batch_size]).tensors, data)
        if self.done < full and self._is_due(full - self.done):
            self._check(in_memory, *data.tensors, batches[0])
        if self._parted is not None:
            return self._end(self._gather(in_memory, ((*data.tensors, own) for own in batches[self.done :]), len(order)))
        if self.done < full and self._can_capture(in_memory, *data.tensors, batches[0]):
            self._replay(data.tensors, order[: full * self.batch_size].view(full, self.batch_size))
        for index in batches[self.done :]:
            self._step(in_memory, *data.tensors, index)
            self._over(1)
        return self._end(len(order))

    def stream(self, batches: Iterable[Batch], size: int | None = None) -> Means:
        """One step for each batch, wherever they come from; the same errors. Those that are done are not among them.

        Args:
            batches: where there are several processes, this one's share of each; of which there is none where
                :meth:`share` has no rows for it.
            size: the number of data in the whole epoch; needed where there are several processes, and to go on in one.
        """
        self._begin(lambda _: None)
        batches = self._checked(batches)
        if self._parted is not None:
            return self._end(self._gather(as_given, (batch.tensors for batch in batches), size))
        count = 0
        for batch in batches:
            count += len(batch)
            if len(batch) == self.batch_size and self._can_capture(as_given, *batch.tensors):
                self._replays.on(batch.tensors).run(1)
            else:
                self._step(as_given, *batch.tensors)
            self._over(1)
        return self._end(count if size is None else size)

    def state(self) -> dict[str, Any]:
        """How far this epoch is, and the averages, for :meth:`restore`. All processes must ask for it, and have the same.

        Raises:
            NonFiniteError: where a step that was replayed had a loss or a gradient that was not finite.
        """
        self._look_at_replays()
        sums, steps, _, skipped, left_out = self._tally
        everyones = torch.stack(self.processes.gather(sums.to("cpu", copy=True)))
        counts = {"done": self.done, "steps": int(steps), "skipped": int(skipped), "left_out": int(left_out)}
        averages = {} if self._averages is None else self._averages.state()
        return {**counts, "sums": everyones, "averages": averages}

    def restore(self, state: dict[str, Any]) -> None:
        """Let the next :meth:`walk` or :meth:`stream` go on from there, and the averages too.

        Raises:
            InputError: where the averages are not those of this run's parameters.
        """
        self.restore_averages(state)
        self._restored = state

    @property
    def next_batch(self) -> int:
        """The number of the batch with which the next :meth:`stream` begins, the first one being 0."""
        return self._restored["done"] if self._restored else 0

    def restore_averages(self, state: dict[str, Any]) -> None:
        """Let the averages alone go on from there, as when an epoch is over; the same errors."""
        if self._averages is not None:
            self._averages.restore(state["averages"])

    def close(self) -> None:
        """Let go of graphs, and of the memory that is theirs."""
        self._replays.clear()
        self._update.close()

    def _is_due(self, steps: int) -> bool:
        """Whether, before so many steps, it is time again to look whether the recorded programs are still the programs."""
        due = self.compile and self._unchecked >= CHECK_EVERY
        self._unchecked = steps if due else self._unchecked + steps
        return due

    def _check(self, rows: Rows, *inputs: Tensor) -> None:
        self._gradient.check(rows, *inputs)
        self._capturable &= self.compile

    def _begin(self, rows: Callable[[int], Sequence[Tensor] | None], data: Batch | None = None) -> None:
        self.module.train_but(self._resting)
        self._gradient.take_up()
        self._rows = rows
        self._gradient.named = data or self._gradient.named
        self._tally.clear()
        self._fault = None
        self.done = 0
        if self._restored is not None:
            self._go_on(self._restored)
            self._restored = None
        if self._update.renew():
            self._replays.clear()

    def _go_on(self, state: dict[str, Any]) -> None:
        """Take up an epoch again; the sums are each process' own, or, with another number of processes, all the first's."""
        self.done = state["done"]
        if len(state["sums"]) == self.processes.number:
            self._tally.sums.copy_(state["sums"][self.processes.rank])
        elif self.processes.rank == 0:
            self._tally.sums.copy_(state["sums"].sum(0))
        for name in ("steps", "skipped", "left_out"):
            getattr(self._tally, name).fill_(state[name])

    def _over(self, batches: int) -> None:
        """So many batches are done."""
        self.done += batches
        self.between()

    def _look_at_replays(self) -> None:
        """Steps that were replayed are looked at only when an epoch is over, or is to be kept."""
        if self._replays and not self._skips and self._tally.failed:
            self._refuse(Fault(self._rows(int(self._tally.steps))))

    def _end(self, count: int) -> Means:
        """The means of an epoch over so many data."""
        self._look_at_replays()
        if self._skips and self._tally.skipped and not self._tally.steps:
            self._refuse(self._fault or (Fault(self._rows(0)) if self._replays else None))
        means = Means(self.module.elbo, self._device)
        means.sums, means.count = self._tally.sums.clone(), count - int(self._tally.left_out)
        self.processes.sum(means.sums)
        self.processes.take_from_first([*self.module.buffers()], self._device)
        return means

    def _step(self, rows: Rows, *inputs: Tensor) -> None:
        """One step that is looked at before parameters move."""
        if self._replays and not self._skips and self._tally.failed:
            return
        noise = GeneratorState(self._device)
        kept = Copies(self.module.buffers()) if self._skips else None
        gradients = self._gradient(rows, *inputs)
        if self._tally.failed:
            self._fail(Fault(rows(*inputs), noise), kept)
        else:
            self._update(gradients)

    def _shares(self, order: Tensor) -> Sequence[Tensor]:
        """The batches of an order, or this process' shares of them; but not a last one without a row."""
        batches = order.split(self.batch_size)
        if self.processes.number == 1:
            return batches
        shares = [index[self.share(len(index))] for index in batches]
        return [own for own in shares if len(own)]

    def _checked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; before some of them with a look whether the recorded programs are still the programs."""
        for batch in batches:
            self._gradient.named = batch
            if len(batch) == self._own_size and self._is_due(1):
                self._check(as_given, *batch.tensors)
            yield batch

    def _gather(self, rows: Rows, shares: Iterator[Sequence[Tensor]], size: int | None) -> int:
        """Steps that are made of parts, to the end of the epoch; returns the number of data."""
        count, parts = 0, self._parts(shares, size)
        for first in parts:
            count += self._parted_step(rows, chain([first], islice(parts, self.accumulate - 1)))
        return count if size is None else size

    def _parts(self, shares: Iterator[Sequence[Tensor]], size: int | None) -> Iterator[Part]:
        """The batches of an epoch, of which a process may have no share."""
        if size is None:
            if self.processes.number > 1:
                raise InputError("size is None, and there are several processes; expected the number of data in the epoch")
            yield from ((len(own[-1]), own) for own in shares)
            return
        for start in range(self.done * self.batch_size, size, self.batch_size):
            number = min(self.batch_size, size - start)
            own = self.share(number)
            yield number, next(shares) if own.stop > own.start else None

    def _parted_step(self, rows: Rows, parts: Iterable[Part]) -> int:
        """One step that is made of parts, and looked at before parameters move; returns the number of its data."""
        parted: Any = self._parted
        kept = Copies(self.module.buffers()) if self._skips else None
        whole = parted(rows, parts, self._wish)
        self.stop_agreed |= whole.wished
        self._tally.add_whole(parted.tally, whole.data, whole.finite)
        if whole.finite:
            self._update(whole.gradients)
        else:
            self._fail(whole.fault, kept)
        self._over(whole.batches)
        return whole.data

    def _fail(self, fault: Fault | None, kept: Copies | None) -> None:
        """A step is not finite: put buffers back, where it may be left out."""
        self._fault = fault or self._fault
        if kept is None:
            self._refuse(fault)
        kept.restore()

    def _refuse(self, fault: Fault | None) -> NoReturn:
        refuse(self.module, self._gradient, fault, self.processes)

    def _can_capture(self, rows: Rows, *inputs: Tensor) -> bool:
        return self._capturable and self._gradient.fused(rows, *inputs) is not None

    def _replay(self, data: tuple[Tensor, ...], order: Tensor) -> None:
        """The steps over data in memory that are not done yet, ``order`` having a row a step."""
        captured = self._replays.along(data, order, self.done)
        while self.done < len(order):
            steps = min(REPLAYS, len(order) - self.done)
            captured.run(steps)
            self._over(steps)


def _require_known(nonfinite: str) -> None:
    if nonfinite not in get_args(NonFinite):
        raise InputError(f"nonfinite is {nonfinite!r}; expected one of {', '.join(map(repr, get_args(NonFinite)))}")


def _require_no_hooks(module: ObjectiveModule) -> None:
    """Raise an InputError for hooks that no step would call."""
    hooked = [name for name, value in module.named_parameters() if getattr(value, "_post_accumulate_grad_hooks", None)]
    if hooked:
        raise InputError(
            f"{hooked[0]} has a hook for the time when its gradient was accumulated, and gradients are not accumulated "
            "here; take register_hook, or SVI"
        )


def _require_parts(module: ObjectiveModule, batch_size: int, accumulate: int, processes: Processes) -> None:
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
