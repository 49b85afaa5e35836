"""The gradient on a batch, recorded and fused where that can be, and computed eagerly where it cannot.

On a minibatch of the usual size the whole computation, from the rows of the data to the clipped gradient and the tally, is
one fused function of tensors, for the same random draws. Other minibatches are computed eagerly.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyrovae.compiling.fallback import recorded, require_agreement, warn_of_eager
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.objectives import Measurement
from pyrovae.objectives.compiled import as_tensors, detached, record
from pyrovae.runtime.arguments import Arguments
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.equivalence import BUFFER, GRADIENT, VALUE, Outcome, difference
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers
from pyrovae.training.batch_gradient import BatchGradient, Gradients, laid_out
from pyrovae.training.epoch_sums import Tally
from pyrovae.training.minibatch import Minibatch

CHECK_EVERY = 100
"""Steps after which a recorded step is compared with an eager one again."""


class CompiledGradient:
    """An eager gradient, or one recorded function for each kind of minibatch of the usual size.

    Args:
        eager: the gradient, computed eagerly.
        size: the number of data in most minibatches; others are not recorded.
        compile: whether to record at all.

    Attributes:
        compile: whether minibatches are recorded, as far as is known.
    """

    def __init__(self, eager: BatchGradient, *, size: int, compile: bool) -> None:
        self.eager = eager
        self.size = size
        self.compile = compile
        self._fused: dict[Any, FusedGradient | None] = {}
        self._unchecked = CHECK_EVERY

    def __call__(self, minibatch: Minibatch) -> Gradients:
        """Compute the gradient, fused for a minibatch of the usual size."""
        fused = self.fused(minibatch) if len(minibatch) == self.size else None
        return fused(*minibatch.tensors) if fused else self._eagerly(minibatch)

    def fused(self, minibatch: Minibatch) -> "FusedGradient | None":
        """Return the gradient as a function of such a minibatch's tensors; None where it is computed eagerly."""
        if not self.compile:
            return None
        kind = minibatch.kind
        if kind not in self._fused:
            self._fused[kind] = recorded(lambda: self._recorded(minibatch), lambda: self._tried_eagerly(minibatch))
        return self._fused[kind]

    def check_if_due(self, steps: int, minibatch: Minibatch) -> None:
        """Call :meth:`check` before so many steps, if the last check was a hundred steps ago or more."""
        due = self.compile and self._unchecked >= CHECK_EVERY
        self._unchecked = steps if due else self._unchecked + steps
        if due:
            self.check(minibatch)

    def check(self, minibatch: Minibatch) -> None:
        """Compare the fused gradient with the eager one at the same random numbers; compute eagerly where they differ.

        They do where Python numbers in the programs, which are recorded as they were, have changed since.
        """
        fused = self.fused(minibatch)
        if fused is None:
            return
        found = self._difference(fused, minibatch)
        if found is not None:
            self.compile = False
            warn_of_eager(
                f"at the same random numbers, they are not what was recorded any more: {found}. What changes within a "
                "run must be a tensor of a module (a buffer, say) that is changed in place, not a Python number"
            )

    def update_buffers(self) -> None:
        """Copy the numbers of buffers that were replaced since, by an eager run say, to where recordings read them."""
        for fused in self._fused.values():
            if fused is not None:
                fused.recording.take_up()

    def _eagerly(self, minibatch: Minibatch) -> Gradients:
        gradients = self.eager(minibatch)
        self.update_buffers()
        return gradients

    def _recorded(self, minibatch: Minibatch) -> "FusedGradient":
        fused = FusedGradient(self.eager, minibatch)

        def first_difference() -> str | None:
            fused.learn_strides(self._tried(lambda: fused(*minibatch.tensors))[GRADIENT].values())
            return self._difference(fused, minibatch)

        require_agreement(first_difference)
        return fused

    def _difference(self, fused: "FusedGradient", minibatch: Minibatch) -> str | None:
        """Say what a fused step gives otherwise than an eager one at the same random numbers."""
        program = self._tried_eagerly(minibatch)
        return difference(program, self._tried(lambda: fused(*minibatch.tensors)))

    def _tried_eagerly(self, minibatch: Minibatch) -> Outcome:
        return self._tried(lambda: self._eagerly(minibatch))

    def _tried(self, step: Callable[[], Gradients]) -> Outcome:
        """Return what a step gives and changes; buffers, random generators and tally are left as they were."""
        module, tally = self.eager.module, self.eager.tally
        kept = Copies(tally)
        with same_random_numbers(self.eager.device), reached(module):
            gradients = step()
            buffers = {name: value.clone() for name, value in module.named_buffers()}
        sums = tally.sums.clone()
        kept.restore()
        names = {id(value): name for name, value in module.named_parameters()}
        named = {names[id(value)]: each for value, each in zip(self.eager.parameters, gradients, strict=True)}
        return {GRADIENT: named, BUFFER: buffers, VALUE: {"bound": sums}}


class FusedGradient:
    """A gradient that was recorded on one minibatch, as a fused function of the tensors of others of its kind.

    Attributes:
        recording: of the objective's measurement and its gradient.
    """

    def __init__(self, eager: BatchGradient, minibatch: Minibatch) -> None:
        self._eager = eager
        self._minibatch = minibatch
        self._restrided: list[int] = []
        self.recording = self._record()
        self._fixed = [*detached(*self.recording.tensors), *eager.tally]
        self._fused = fuse(lambda *tensors: self._step(*tensors), [*self._fixed, *minibatch.tensors])

    def __call__(self, *tensors: Tensor) -> Gradients:
        gradients = [*self._fused(*self._fixed, *tensors)]
        for place in self._restrided:
            gradients[place] = laid_out(gradients[place], self._eager.parameters[place])
        return gradients

    def learn_strides(self, gradients: Any) -> None:
        """Note which gradients kernels lay out otherwise than was expected where shapes alone were traced."""
        pairs = enumerate(zip(gradients, self._eager.parameters, strict=True))
        self._restrided += [place for place, (value, parameter) in pairs if laid_out(value, parameter) is not value]

    def _record(self) -> Recording:
        with same_random_numbers(self._eager.device):
            batch = self._eager.with_draw(self._minibatch.batch())

        def measure(*tensors: Tensor) -> list[Tensor | None]:
            measured, gradients = self._eager.measure(batch.with_tensors(*tensors))
            return [*as_tensors(measured), *gradients]

        return record(self._eager.module, Arguments((batch.x,), batch.given), measure)

    def _step(self, *tensors: Tensor) -> Gradients:
        """Compute what is fused: of the tensors of the recording, of the tally and of a minibatch."""
        own, sums, terms = len(self.recording.tensors), len(Tally._fields), len(Measurement._fields)
        recorded, tally, given = tensors[:own], Tally(*tensors[own : own + sums]), tensors[own + sums :]
        batch = self._eager.with_draw(self._minibatch.batch_from(given))
        outputs = self.recording(recorded, *batch.tensors)
        return self._eager.finish(tally, Measurement(*outputs[:terms]), outputs[terms:], len(batch))
