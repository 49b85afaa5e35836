"""Steps whose loss or gradient is not finite, and what is said of them."""

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from torch import Tensor

from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.processes import Processes
from pyrovae.runtime.seeds import GeneratorState
from pyrovae.training.batch_gradient import BatchGradient
from pyrovae.training.blame import NonFiniteError, blame, with_remedy


class Fault(NamedTuple):
    """A batch on which a step was not finite.

    Attributes:
        tensors: those of the batch; None where they are no longer available.
        noise: the random generator as it was before it, where that is known.
    """

    tensors: Sequence[Tensor] | None
    noise: GeneratorState | None = None


def refuse(module: ObjectiveModule, gradient: BatchGradient, fault: Fault | None, processes: Processes) -> NoReturn:
    """Raise a NonFiniteError that says why a step failed, the same in all processes, some of which may have no fault."""
    said = processes.gather(None if fault is None else _said(module, gradient, fault))
    blamed = [(rank, message) for rank, message in enumerate(said) if message is not None]
    if not blamed:
        raise NonFiniteError(with_remedy("no step of this epoch had a finite loss and gradient"))
    rank, message = blamed[0]
    where = f"in process {rank}, on its share of the batch, " if processes.number > 1 else ""
    raise NonFiniteError(where + message)


def _said(module: ObjectiveModule, gradient: BatchGradient, fault: Fault) -> str:
    if fault.noise is not None:
        fault.noise.restore()
    return blame(module, None if fault.tensors is None else gradient.batch(fault.tensors))
