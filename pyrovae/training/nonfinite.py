"""Steps whose loss or gradient is not finite: they end the run with an error, or are skipped."""

from collections.abc import Callable
from typing import Literal, NamedTuple, NoReturn, get_args

from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.processes import Processes
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.batch_gradient import BatchGradient
from pyrovae.training.epoch_sums import Tally
from pyrovae.training.failing_site import NonFiniteError, blame, with_remedy

NonFinite = Literal["stop", "skip"]
"""What becomes of a step whose loss or gradient is not finite: it ends the run, or it is skipped."""


def require_known(nonfinite: str) -> None:
    """Raise an InputError unless the word is one of ``NonFinite``."""
    if nonfinite not in get_args(NonFinite):
        raise InputError(f"nonfinite is {nonfinite!r}; expected one of {', '.join(map(repr, get_args(NonFinite)))}")


class Fault(NamedTuple):
    """A batch on which a step was not finite.

    Attributes:
        batch: as it was read, before binarisation; None where it is no longer available.
        noise: the random generator as it was before the step, where that is known.
    """

    batch: Batch | None
    noise: GeneratorState | None = None


class Failures:
    """The steps of an epoch that were not finite, and what becomes of them.

    A step that is looked at at once is settled before parameters move. A replayed step moves nothing where it fails, on the
    device, and is found later, by its number, when the tally is read.

    Args:
        gradient: whose steps these are.
        tally: that of the epoch.
        processes: those that train together, which all raise the same error.
        skips: whether a run goes on without such a step.

    Attributes:
        replayed: whether steps of this epoch were replayed, and may have failed unseen.
    """

    def __init__(self, gradient: BatchGradient, tally: Tally, processes: Processes, *, skips: bool) -> None:
        self.skips = skips
        self.replayed = False
        self._module = gradient.module
        self._gradient = gradient
        self._tally = tally
        self._processes = processes
        self._last: Fault | None = None
        self._batch_of_step: Callable[[int], Batch | None] = lambda _: None

    @property
    def failed(self) -> Tensor:
        """A flag on the device: 1 where the last step failed."""
        return self._tally.failed

    @property
    def guarded(self) -> nn.Module | None:
        """The module whose buffers must be put back after a step that failed, if steps are skipped."""
        return self._module if self.skips else None

    def begin(self, batch_of_step: Callable[[int], Batch | None]) -> None:
        """Begin an epoch, of whose batches this returns those that are still available."""
        self._last, self.replayed, self._batch_of_step = None, False, batch_of_step

    def buffers(self) -> Copies | None:
        """Copy the module's buffers before a step that may be skipped."""
        return Copies(self._module.buffers()) if self.skips else None

    def settle(self, fault: Fault | None, before: Copies | None) -> None:
        """Raise a NonFiniteError for a step that failed, or put back the buffers from before it."""
        self._last = fault or self._last
        if before is None:
            self._refuse(fault)
        before.restore()

    def ended(self) -> bool:
        """Whether a replayed step has failed in a run that this ends."""
        return self.replayed and not self.skips and bool(self._tally.failed)

    def require_replays(self) -> None:
        """Raise a NonFiniteError where a replayed step has failed in a run that this ends."""
        if self.ended():
            self._refuse(Fault(self._batch_of_step(int(self._tally.steps))))

    def require_a_finite_step(self) -> None:
        """Raise a NonFiniteError where all steps of the epoch were skipped."""
        if self.skips and self._tally.skipped and not self._tally.steps:
            self._refuse(self._last or (Fault(self._batch_of_step(0)) if self.replayed else None))

    def _refuse(self, fault: Fault | None) -> NoReturn:
        """Raise a NonFiniteError that says why a step failed, the same in all processes, some of which have no fault."""
        said = self._processes.gather(None if fault is None else self._explain(fault))
        blamed = [(rank, message) for rank, message in enumerate(said) if message is not None]
        if not blamed:
            raise NonFiniteError(with_remedy("no step of this epoch had a finite loss and gradient"))
        rank, message = blamed[0]
        where = f"in process {rank}, on its share of the batch, " if self._processes.number > 1 else ""
        raise NonFiniteError(where + message)

    def _explain(self, fault: Fault) -> str:
        if fault.noise is not None:
            fault.noise.restore()
        return blame(self._module, None if fault.batch is None else self._gradient.with_draw(fault.batch))
