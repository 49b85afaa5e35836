"""Training steps: rows of the data, their binarisation, the loss, its gradient, clipping and the optimiser's update.

Eagerly a step is what it looks like. Compiled, all of it up to the update is one fused graph, and the update is torch's
own fused optimiser. On CUDA both are captured in a CUDA graph, and nothing waits for the device before an epoch is over.
The random numbers are the same whichever way a step runs.
"""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import SGD, Adam, AdamW, Optimizer

from pyrovae.batches import Batch, Columns
from pyrovae.captured import Captured
from pyrovae.errors import InputError
from pyrovae.objectives import Measurement, Objective, ObjectiveModule
from pyrovae.parameters import same_random_numbers
from pyrovae.recording import NotRecordedError, fuse
from pyrovae.training.checks import MovedParameters, Noise, blame
from pyrovae.training.compiled import detached, leaves, record, warn_of_eager
from pyrovae.training.metrics import Means, number, sums
from pyrovae.training.tape import Tape

CHECK_EVERY = 100
"""Steps after which a recorded step is compared with an eager one again."""
REPLAYS = 128
"""Steps that are replayed before Python has a word again."""
TOLERANCE = 1e-3
"""Of that comparison, relative: rounding stays well below it, in bfloat16 too."""

Gradients = Sequence[Tensor | None]
Replayable = tuple[Callable[[], None], list[Tensor]]
"""A step of no arguments, and the tensors that it reads."""
Rows = Callable[..., Sequence[Tensor]]
"""What makes the tensors of a batch of those that a step is given."""


def in_memory(*data_and_index: Tensor) -> Sequence[Tensor]:
    """The rows of data that are held in memory at an index, the last of the tensors."""
    *data, index = data_and_index
    return [column[index] for column in data]


def as_given(*batch: Tensor) -> Sequence[Tensor]:
    """Rows that were read elsewhere."""
    return batch


def as_it_is(x: Tensor) -> Tensor:
    """What a use makes of data that are not binarised anew."""
    return x


class State(NamedTuple):
    """What steps add up where the parameters are, to be read when an epoch is over.

    Attributes:
        sums: of bound, reconstruction, KL and the objective's parts over data, float64.
        steps: the number of steps whose loss and gradient were finite.
        failed: 1 once a step's were not, and from then on no parameter moves.
    """

    sums: Tensor
    steps: Tensor
    failed: Tensor

    @classmethod
    def zero(cls, objective: Objective, device: torch.device) -> "State":
        """The state at the beginning of an epoch."""
        sums = torch.zeros(number(objective), dtype=torch.float64, device=device)
        failed = torch.zeros((), dtype=torch.float32, device=device)  # what torch's fused kernels take it in
        return cls(sums, torch.zeros((), dtype=torch.int64, device=device), failed)

    def add(self, measured: Measurement, finite: Tensor) -> None:
        """Take down one step, in place."""
        self.failed.copy_(torch.maximum(self.failed, (~finite).float()))
        self.steps.add_(1 - self.failed.long())
        self.sums.add_(sums(measured))


class Steps:
    """The steps of a training run. Compiled are those on batches of one size; the last of an epoch may be short, and eager.

    Args:
        module: the objective on the pair, started.
        optimizer: of its parameters; it is made to use torch's fused kernels where it has them and was not told otherwise.
        batch_size: data in a compiled step.
        draw: what each use makes of rows of the data, such as their binarisation.
        clip_norm: the largest norm of the gradient, all parameters together; a longer one is scaled down to it.
        compile: whether to fuse the steps; a program that cannot be recorded runs eagerly, after a warning.

    Attributes:
        between: called between steps: after each, or, where steps are replayed, after 128.
        done: the number of steps done in this epoch.
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
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.draw = draw
        self.clip_norm = clip_norm
        self.compile = compile
        self.between: Callable[[], None] = lambda: None
        self.done = self._seen = 0
        self.seconds_to_first_step: float | None = None
        self._parameters = [value for group in optimizer.param_groups for value in group["params"] if value.requires_grad]
        self._device = self._parameters[0].device
        self._state = State.zero(module.elbo, self._device)
        self._fused: dict[Any, Callable[..., Gradients] | None] = {}
        self._captured: dict[Any, tuple[Captured, list[Tensor]]] = {}
        self._settings: list[dict[str, Any]] = []
        self._tape: Tape | None = None
        self._named: Batch = Columns(torch.empty(0))
        self._unchecked = CHECK_EVERY
        self._restored: dict[str, Any] | None = None
        self._rows: Callable[[int], Sequence[Tensor] | None] = lambda _: None
        fused = _use_fused_kernels(optimizer) and compile and not _has_hooks(optimizer)
        self._capturable, self._noting = fused and self._device.type == "cuda", fused and self._device.type == "cpu"
        self._began = perf_counter()

    def walk(self, data: Batch, order: Tensor | None = None) -> Means:
        """One step for each batch of data held in memory, on the parameters' device, in this order or as they lie.

        Raises:
            InputError: for a loss or a gradient that is not finite, naming the site.
        """
        order = torch.arange(len(data)) if order is None else order
        order = order.to(self._device)
        batches = order.split(self.batch_size)
        full = len(order) // self.batch_size
        self._begin(lambda step: data.rows(order[step * self.batch_size :][: self.batch_size]).tensors, data)
        if self.done < full and self._is_due(full - self.done):
            self._check(in_memory, *data.tensors, batches[0])
        if self.done < full and self._can_capture(in_memory, *data.tensors, batches[0]):
            self._replay(data.tensors, order[: full * self.batch_size].view(full, self.batch_size))
        for index in batches[self.done :]:
            self._step(in_memory, *data.tensors, index)
            self._over(1, len(index))
        return self._end()

    def stream(self, batches: Iterable[Batch]) -> Means:
        """One step for each batch, wherever they come from; the same errors. Those that are done are not among them."""
        self._begin(lambda _: None)
        for batch in batches:
            self._named = batch
            if len(batch) == self.batch_size and self._is_due(1):
                self._check(as_given, *batch.tensors)
            if len(batch) == self.batch_size and self._can_capture(as_given, *batch.tensors):
                self._replay_on(batch.tensors)
            else:
                self._step(as_given, *batch.tensors)
            self._over(1, len(batch))
        return self._end()

    def state(self) -> dict[str, Any]:
        """How far this epoch is, for :meth:`restore`.

        Raises:
            InputError: where a step that was replayed had a loss or a gradient that was not finite.
        """
        self._look_at_replays()
        return {"done": self.done, "data": self._seen, "sums": self._state.sums.cpu()}

    def restore(self, state: dict[str, Any]) -> None:
        """Let the next :meth:`walk` or :meth:`stream` go on from there."""
        self._restored = state

    @property
    def next_batch(self) -> int:
        """The number of the batch with which the next :meth:`stream` begins, the first one being 0."""
        return self._restored["done"] if self._restored else 0

    def _is_due(self, steps: int) -> bool:
        """Whether, before so many steps, it is time again to look whether the recorded programs are still the programs."""
        due = self.compile and self._unchecked >= CHECK_EVERY
        self._unchecked = steps if due else self._unchecked + steps
        return due

    def _begin(self, rows: Callable[[int], Sequence[Tensor] | None], data: Batch | None = None) -> None:
        self.module.train()
        self._rows = rows
        self._named = data or self._named
        for value in self._state:
            value.zero_()
        self.done = self._seen = 0
        if self._restored is not None:
            self.done, self._seen = self._restored["done"], self._restored["data"]
            self._state.sums.copy_(self._restored["sums"])
            self._state.steps.fill_(self.done)
            self._restored = None
        self._tape = None
        if (settings := self._read_settings()) != self._settings:  # a schedule has stepped
            self._settings, self._captured = settings, {}

    def _over(self, steps: int, data: int) -> None:
        """So many steps are done, on so many data."""
        self.done += steps
        self._seen += data
        self.between()

    def _look_at_replays(self) -> None:
        """Steps that were replayed are looked at only when an epoch is over, or is to be kept."""
        if self._captured and self._state.failed:
            self._refuse(self._rows(int(self._state.steps)))

    def close(self) -> None:
        """Let go of graphs, and of the memory that is theirs."""
        self._captured, self._tape = {}, None
        self.optimizer.zero_grad()
        vars(self.optimizer).pop("found_inf", None)

    def _end(self) -> Means:
        """The means of the epoch."""
        self._look_at_replays()
        means = Means(self.module.elbo, self._device)
        means.sums, means.count = self._state.sums.clone(), self._seen
        return means

    def _step(self, rows: Rows, *inputs: Tensor) -> None:
        """One step that is looked at before parameters move."""
        if self._captured and self._state.failed:
            return
        noise = Noise(self._device)
        fused = self._function(rows, *inputs) if len(inputs[-1]) == self.batch_size else None
        gradients = fused(*inputs) if fused else self._eager(rows(*inputs))
        if self._state.failed:
            noise.restore()
            self._refuse(rows(*inputs))
        self._update(gradients)

    def _batch(self, tensors: Sequence[Tensor]) -> Batch:
        """What the programs are called with, of the tensors of a batch."""
        x, *given = tensors
        return self._named.with_tensors(self.draw(x), *given)

    def _eager(self, tensors: Sequence[Tensor]) -> Gradients:
        batch = self._batch(tensors)
        measured = self.module.measure(batch.x, **batch.given)
        gradients, finite = self._gradients(measured, self._parameters)
        self._state.add(measured, finite)
        return gradients

    def _gradients(self, measured: Measurement, parameters: Sequence[Tensor]) -> tuple[Gradients, Tensor]:
        """The gradient of the mean loss, clipped, and whether both are finite."""
        loss = measured.loss / (measured.scale * measured.bound.numel())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [_laid_out(gradient, parameter) for gradient, parameter in zip(found, parameters, strict=True)]
        norm = get_total_norm([value for value in gradients if value is not None])
        finite = torch.isfinite(loss.detach() + norm)
        if self.clip_norm is None:
            return gradients, finite
        factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        return [None if value is None else value * factor for value in gradients], finite

    def _update(self, gradients: Gradients) -> None:
        """The optimiser's step; on a CPU from the tape of an earlier one, where its kernels are fused."""
        if self.seconds_to_first_step is None:
            self._first_update(gradients)
        elif self._tape is not None and self._tape.fits(gradients):
            self._tape.play(gradients)
        elif self._noting:
            with Tape(gradients) as self._tape:
                self._plain_update(gradients)
            self._noting = self._tape.complete
        else:
            self._plain_update(gradients)

    def _plain_update(self, gradients: Gradients) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def _first_update(self, gradients: Gradients) -> None:
        watched = MovedParameters(self.module)
        self._plain_update(gradients)
        self.seconds_to_first_step = perf_counter() - self._began
        if any(group["lr"] for group in self.optimizer.param_groups):
            watched.warn(self.module)

    def _refuse(self, tensors: Sequence[Tensor] | None) -> NoReturn:
        """Raise an InputError that says why the step on these rows failed."""
        raise InputError(blame(self.module, None if tensors is None else self._batch(tensors)))

    def _function(self, rows: Rows, *inputs: Tensor) -> Callable[..., Gradients] | None:
        """From a step's tensors to its gradients, fused; ``None`` where steps run eagerly."""
        if not self.compile:
            return None
        key = rows, tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._fused:
            try:
                self._fused[key] = self._fuse(rows, inputs)
            except NotRecordedError as error:
                self._fused[key] = warn_of_eager(f"they cannot be recorded: {error}")
        return self._fused[key]

    def _check(self, rows: Rows, *inputs: Tensor) -> None:
        """Compare the fused step with an eager one from the same random numbers, and go on eagerly where they differ.

        They do where Python numbers in the programs, which are recorded as they were, have changed since.
        """
        fused = self._function(rows, *inputs)
        if fused is None:
            return
        eager = self._tried(lambda: self._eager(rows(*inputs)))
        again = self._tried(lambda: fused(*inputs))
        if not torch.allclose(eager, again, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            self.compile = self._capturable = False
            warn_of_eager(
                "they are not what was recorded any more: what changes within a run must be a tensor of a module (a buffer, "
                "say) that is changed in place, not a Python number"
            )

    def _tried(self, step: Callable[[], Any]) -> Tensor:
        """The sums that a step adds up; buffers, random generators and sums are left as they were."""
        kept = [(value, value.clone()) for value in (*self.module.buffers(), *self._state)]
        with same_random_numbers(self._device):
            step()
        sums = self._state.sums.clone()
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)
        return sums

    def _fuse(self, rows: Rows, inputs: tuple[Tensor, ...]) -> Callable[..., Gradients]:
        with same_random_numbers(self._device):
            batch = self._batch(rows(*inputs))
            recording = record(self.module, (batch.x,), batch.given)
        own, wanted = len(recording.tensors), [tensor.requires_grad for tensor in recording.tensors]
        places = [_place(value, recording.tensors) for value in self._parameters]

        @torch.enable_grad()
        def step(*everything: Tensor) -> Gradients:
            mine, (state, given) = leaves(everything[:own], wanted), (everything[own : own + 3], everything[own + 3 :])
            batch = self._batch(rows(*given))
            measured = Measurement(*recording(mine, batch.x, **batch.given))
            gradients, finite = self._gradients(measured, [mine[place] for place in places])
            State(*state).add(measured, finite)
            return gradients

        fixed = [*detached(*recording.tensors), *self._state]
        fused = fuse(step, [*fixed, *inputs])
        return lambda *inputs: fused(*fixed, *inputs)

    def _can_capture(self, rows: Rows, *inputs: Tensor) -> bool:
        return self._capturable and self._function(rows, *inputs) is not None

    def _replay(self, data: tuple[Tensor, ...], order: Tensor) -> None:
        """The steps over data in memory that are not done yet, ``order`` having a row a step."""
        fused: Any = self._function(in_memory, *data, order[0])

        def make() -> Replayable:
            indices, place = torch.empty_like(order), torch.zeros(1, dtype=torch.int64, device=order.device)

            def step() -> None:
                self._update(fused(*data, indices.index_select(0, place).squeeze(0)))
                place.add_(1)

            return step, [indices, place]

        held = tuple((column.data_ptr(), column.shape, column.dtype) for column in data)
        captured, (indices, place) = self._capture((in_memory, held, order.shape), make)
        indices.copy_(order)
        place.fill_(self.done)
        while self.done < len(order):
            steps = min(REPLAYS, len(order) - self.done)
            captured.run(steps)
            self._over(steps, steps * self.batch_size)

    def _replay_on(self, batch: tuple[Tensor, ...]) -> None:
        """A step on one batch."""
        fused: Any = self._function(as_given, *batch)

        def make() -> Replayable:
            here = [torch.empty_like(column) for column in batch]
            return lambda: self._update(fused(*here)), here

        captured, here = self._capture((as_given, tuple((column.shape, column.dtype) for column in batch)), make)
        for place, column in zip(here, batch, strict=True):
            place.copy_(column)
        captured.run(1)

    def _capture(self, what: Any, make: Callable[[], Replayable]) -> tuple[Captured, list[Tensor]]:
        """A step, captured, and the tensors that it reads."""
        if what not in self._captured:
            self.optimizer.found_inf = self._state.failed  # pyright: ignore  # at 1, its fused kernels leave everything alone
            function, tensors = make()
            self._captured = {what: (Captured(function, self._device), tensors)}
        return self._captured[what]

    def _read_settings(self) -> list[dict[str, Any]]:
        """The optimiser's, which captured graphs and tapes have in them."""
        groups = self.optimizer.param_groups
        return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def _use_fused_kernels(optimizer: Optimizer) -> bool:
    """Turn on torch's fused kernels where the optimiser has them and was not told otherwise; whether they are on.

    They keep Python out of the update, and can be captured in a CUDA graph and told on the device to do nothing.
    """
    for group in optimizer.param_groups:
        if type(optimizer) in (Adam, AdamW, SGD) and not group["foreach"] and group["fused"] is None:
            group["fused"] = not group["differentiable"] and all(value.is_floating_point() for value in group["params"])
        if group.get("fused") and "capturable" in group:
            group["capturable"] = group["params"][0].is_cuda
    return all(group.get("fused") for group in optimizer.param_groups)


def _has_hooks(optimizer: Optimizer) -> bool:
    """Whether somebody wants to be called at each step of the optimiser."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def _laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """The gradient with the strides of its parameter, on which torch's fused kernels rely."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


def _place(value: Tensor, tensors: list[Tensor]) -> int:
    places = [i for i, tensor in enumerate(tensors) if tensor is value]
    if not places:
        raise NotRecordedError("the optimiser has a parameter that the programs have not")
    return places[0]
