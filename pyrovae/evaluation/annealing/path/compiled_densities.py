"""The densities of a path and their gradients, recorded and fused into one function of tensors."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from pyrovae.compiling.fallback import recorded, require_agreement
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.evaluation.annealing.path.end_densities import EndDensities
from pyrovae.evaluation.annealing.path.initial_density import InitialDensity
from pyrovae.evaluation.annealing.path.numerical_failures import FailuresAsNaN
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.equivalence import GRADIENT, Outcome, difference
from pyrovae.runtime.parameters import same_random_numbers

Fused = Callable[..., list[Tensor]]
"""A function of the tensors of a batch and of ``u`` that returns what follows ``u`` in a state."""


def fused_densities(densities: EndDensities, initial: InitialDensity, batch: Batch, u: Tensor) -> Fused | None:
    """Record and fuse :meth:`EndDensities.with_gradients`; None, after a warning, where it cannot be recorded.

    Args:
        densities: both ends of the path.
        initial: the density that ``u`` are draws of.
        batch: data of the shapes that the function will be called with.
        u: positions of the chains, of the shape that the function will be called with.
    """

    def eagerly() -> None:
        with same_random_numbers(batch.x), initial.requiring_defined():
            densities.state(batch, u)

    return recorded(lambda: _fused(densities, batch, u), eagerly)


def _fused(densities: EndDensities, batch: Batch, u: Tensor) -> Fused:
    def with_gradients(*inputs: Tensor) -> list[Tensor]:
        return densities.with_gradients(batch.with_tensors(*inputs[:-1]), inputs[-1])

    with FailuresAsNaN():
        recording = Recording(with_gradients, densities, [*batch.tensors, u])
    own = [tensor.detach() for tensor in recording.tensors]
    fused = fuse(lambda *all: recording(all[: len(own)], *all[len(own) :]), [*own, *batch.tensors, u])

    def outcome(function: Callable[..., Any], *own: Tensor) -> Outcome:
        with same_random_numbers(u):
            return {GRADIENT: dict(enumerate(function(*own, *batch.tensors, u)))}

    require_agreement(lambda: difference(outcome(with_gradients), outcome(fused, *own)))
    return lambda *inputs: fused(*own, *inputs)
