"""From the tensors of a batch to the gradient of its mean loss: eagerly, or recorded and fused."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyrovae.compiling.fallback import recorded, require_agreement, warn_of_eager
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.engine.derivatives import derivatives
from pyrovae.errors import InputError
from pyrovae.objectives import Measurement, ObjectiveModule
from pyrovae.objectives.compiled import as_tensors, detached, record
from pyrovae.runtime.arguments import Arguments
from pyrovae.runtime.batches import Batch, Columns
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.equivalence import BUFFER, GRADIENT, VALUE, Outcome, difference
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers
from pyrovae.training.epoch_sums import Tally

Gradients = Sequence[Tensor | None]
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


class BatchGradient:
    """The gradient of the mean loss on a batch, and what the batch adds to a tally.

    Args:
        module: the objective on the pair, started.
        parameters: with respect to which.
        tally: what batches are taken down in.
        size: the number of data in most batches; others are not fused.
        draw: what each use makes of rows of the data, such as their binarisation.
        clip_norm: the largest norm of a gradient, all parameters together; a longer one is scaled down to it.
        leave_out: whether the tally leaves out what is not finite, or stays at it.
        compile: whether batches may be fused.

    Attributes:
        named: a batch, for the names of what is given beside its data.
    """

    def __init__(
        self,
        module: ObjectiveModule,
        parameters: Sequence[nn.Parameter],
        tally: Tally,
        *,
        size: int,
        draw: Callable[[Tensor], Tensor] = as_it_is,
        clip_norm: float | None = None,
        leave_out: bool = False,
        compile: bool = True,
    ) -> None:
        self.compile = compile
        self.named: Batch = Columns(torch.empty(0))
        self._module = module
        self.parameters = parameters
        self.tally = tally
        self._size = size
        self._draw = draw
        self._clip_norm = clip_norm
        self._leave_out = leave_out
        self.device = parameters[0].device
        self._fused: dict[Any, Callable[..., Gradients] | None] = {}
        self._recordings: list[Recording] = []

    def __call__(self, rows: Rows, *inputs: Tensor) -> Gradients:
        """The gradient on the batch that inputs make, fused if it has the size of most."""
        fused = self.fused(rows, *inputs) if len(inputs[-1]) == self._size else None
        return fused(*inputs) if fused else self.eager(rows(*inputs))

    def batch(self, tensors: Sequence[Tensor]) -> Batch:
        """What the programs are called with, of the tensors of a batch."""
        x, *given = tensors
        return self.named.with_tensors(self._draw(x), *given)

    def eager(self, tensors: Sequence[Tensor]) -> Gradients:
        """The gradient on the tensors of a batch."""
        batch = self.batch(tensors)
        measured, gradients = self._measured(batch)
        self.take_up()
        return self._take_down(self.tally, measured, gradients, len(batch))

    def take_up(self) -> None:
        """Take over the numbers of buffers that were replaced since, by an eager run say."""
        for recording in self._recordings:
            recording.take_up()

    def _measured(self, batch: Batch) -> tuple[Measurement, Gradients]:
        """What was measured of a batch, and the gradient of its mean loss."""
        measured = self._module.measure(batch.x, **batch.given)
        loss = measured.loss / (measured.scale * measured.bound.numel())
        gradients = derivatives(loss, self.parameters)
        if not all(value is None or value.layout == torch.strided for value in gradients):
            self._refuse_sparse(gradients)
        return measured, gradients

    def _refuse_sparse(self, gradients: Gradients) -> NoReturn:
        names = {id(value): name for name, value in self._module.named_parameters()}
        pairs = zip(self.parameters, gradients, strict=True)
        sparse = [names[id(value)] for value, each in pairs if each is not None and each.layout != torch.strided]
        raise InputError(
            f"the gradient of {', '.join(sparse)} is sparse; expected dense ones: build the embedding with sparse=False"
        )

    def fused(self, rows: Rows, *inputs: Tensor) -> Callable[..., Gradients] | None:
        """The gradient as a function of inputs like these, fused; ``None`` where it is computed eagerly."""
        if not self.compile:
            return None
        key = rows, tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._fused:
            eagerly = partial(self._tried, lambda: self.eager(rows(*inputs)))
            self._fused[key] = recorded(lambda: self._fuse(rows, inputs), eagerly)
        return self._fused[key]

    def check(self, rows: Rows, *inputs: Tensor) -> None:
        """Compare the fused gradient with an eager one from the same random numbers, and go on eagerly where they differ.

        They do where Python numbers in the programs, which are recorded as they were, have changed since.
        """
        fused = self.fused(rows, *inputs)
        if fused is None:
            return
        found = self._difference(rows, fused, inputs)
        if found is not None:
            self.compile = False
            warn_of_eager(
                f"at the same random numbers, they are not what was recorded any more: {found}. What changes within a "
                "run must be a tensor of a module (a buffer, say) that is changed in place, not a Python number"
            )

    def _difference(self, rows: Rows, fused: Callable[..., Gradients], inputs: Sequence[Tensor]) -> str | None:
        """What a fused step gives otherwise than an eager one at the same random numbers."""
        program = self._tried(lambda: self.eager(rows(*inputs)))
        return difference(program, self._tried(lambda: fused(*inputs)))

    def _take_down(self, tally: Tally, measured: Measurement, gradients: Gradients, data: int) -> Gradients:
        """The gradient, clipped, and into the tally what was measured, and whether all of it is finite."""
        gradients = [_laid_out(value, parameter) for value, parameter in zip(gradients, self.parameters, strict=True)]
        gradients, norm = clipped(gradients, self._clip_norm)
        finite = torch.isfinite(measured.loss.detach() / (measured.scale * measured.bound.numel()) + norm)
        if self._leave_out:
            tally.add_finite(measured, finite, data)
        else:
            tally.add(measured, finite)
        return gradients

    def _tried(self, step: Callable[[], Gradients]) -> Outcome:
        """What a step gives and changes; buffers, random generators and tally are left as they were."""
        kept = Copies(self.tally)
        with same_random_numbers(self.device), reached(self._module):
            gradients = step()
            buffers = {name: value.clone() for name, value in self._module.named_buffers()}
        sums = self.tally.sums.clone()
        kept.restore()
        names = {id(value): name for name, value in self._module.named_parameters()}
        named = {names[id(value)]: each for value, each in zip(self.parameters, gradients, strict=True)}
        return {GRADIENT: named, BUFFER: buffers, VALUE: {"bound": sums}}

    def _fuse(self, rows: Rows, inputs: tuple[Tensor, ...]) -> Callable[..., Gradients]:
        with same_random_numbers(self.device):
            batch = self.batch(rows(*inputs))

        def measure(*tensors: Tensor) -> list[Tensor | None]:
            measured, gradients = self._measured(batch.with_tensors(*tensors))
            return [*as_tensors(measured), *gradients]

        recording = record(self._module, Arguments((batch.x,), batch.given), measure)
        self._recordings.append(recording)
        own, terms = len(recording.tensors), len(Measurement._fields)

        def step(*everything: Tensor) -> Gradients:
            mine, rest = everything[:own], everything[own:]
            tally, given = Tally(*rest[: len(Tally._fields)]), rest[len(Tally._fields) :]
            batch = self.batch(rows(*given))
            outputs = recording(mine, *batch.tensors)
            return self._take_down(tally, Measurement(*outputs[:terms]), outputs[terms:], len(batch))

        fixed = [*detached(*recording.tensors), *self.tally]
        fused = fuse(step, [*fixed, *inputs])

        turned: list[int] = []  # what kernels lay out otherwise than was expected where shapes alone were traced

        def run(*inputs: Tensor) -> Gradients:
            gradients = [*fused(*fixed, *inputs)]
            for place in turned:
                gradients[place] = _laid_out(gradients[place], self.parameters[place])
            return gradients

        def look() -> str | None:
            first = self._tried(lambda: run(*inputs))[GRADIENT].values()
            turned.extend(i for i, value in enumerate(first) if _laid_out(value, self.parameters[i]) is not value)
            return self._difference(rows, run, inputs)

        require_agreement(look)
        return run


def clipped(gradients: Gradients, clip_norm: float | None) -> tuple[Gradients, Tensor]:
    """The gradients, scaled down where their norm, all together, is larger than ``clip_norm``, and the norm before."""
    norm = get_total_norm([value for value in gradients if value is not None])
    if clip_norm is None:
        return gradients, norm
    factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    return [None if value is None else value * factor for value in gradients], norm


def _laid_out(gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """The gradient with the strides of its parameter, on which torch's fused kernels rely."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
