"""Steps that are made of parts: of several batches, of the shares that processes have of a batch, or both."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.processes import Processes
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.batch_gradient import BatchGradient, Gradients, Rows, clipped
from pyrovae.training.gradient_sum import Gathered
from pyrovae.training.nonfinite import Fault

Part = tuple[int, Sequence[Tensor] | None]
"""A batch of a step: the number of its data, and the inputs that are this process' share, if it has one."""


class Whole(NamedTuple):
    """A step, all of its parts together.

    Attributes:
        gradients: of the mean loss over its data, clipped.
        finite: whether all losses and gradients, and the whole, are; the same in every process.
        fault: the first part that was not, of this process.
        data: how many there are in the step, in all processes together.
        batches: how many it is made of.
        wished: whether a process wishes to stop.
    """

    gradients: Gradients
    finite: bool
    fault: Fault | None
    data: int
    batches: int
    wished: bool


class Parted:
    """Puts steps together.

    Args:
        module: the objective on the pair.
        gradient: of a part, not clipped, with a tally for the parts of one step.
        clip_norm: the largest norm of a whole gradient.
        processes: those that have shares of a batch.
    """

    def __init__(
        self, module: ObjectiveModule, gradient: BatchGradient, clip_norm: float | None, processes: Processes
    ) -> None:
        self.tally = gradient.tally
        self._state = module.elbo.state
        self._gradient = gradient
        self._clip_norm = clip_norm
        self._device = gradient.device
        self._gathered = Gathered(gradient.parameters, processes)

    def __call__(self, rows: Rows, parts: Iterable[Part], wish: bool) -> Whole:
        """One step up to the update of the parameters."""
        self.tally.clear()
        self._gathered.clear()
        counted = Copies(() if self._state is None else self._state.buffers())
        fault, data, batches = None, 0, 0
        for number, inputs in parts:
            if batches:
                counted.restore()  # what an objective keeps from step to step moves on once a step
            if inputs is not None:
                fault = self._add(rows, inputs, fault)
            data, batches = data + number, batches + 1
        failed, wished = self._gathered.exchange(fault is not None, wish)
        gradients, norm = clipped(self._gathered.mean(data), self._clip_norm)
        return Whole(gradients, not failed and bool(norm.isfinite()), fault, data, batches, wished)

    def _add(self, rows: Rows, inputs: Sequence[Tensor], fault: Fault | None) -> Fault | None:
        """Add a part's gradient to the others; the first fault among them."""
        noise = GeneratorState(self._device)
        self._gathered.add(self._gradient(rows, *inputs), len(inputs[-1]))
        return fault or (Fault(rows(*inputs), noise) if self.tally.failed else None)
