"""The densities of a path and their gradients, recorded and fused into functions of tensors."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from pyrovae.compiling.fallback import recorded, require_agreement
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.evaluation.annealing.path.end_densities import EndDensities
from pyrovae.evaluation.annealing.path.initial_density import InitialDensity
from pyrovae.evaluation.annealing.path.numerical_failures import FailuresAsNaN
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.equivalence import GRADIENT, VALUE, Outcome, difference
from pyrovae.runtime.parameters import same_random_numbers

Fused = Callable[..., list[Tensor]]
"""A function of the tensors of a batch and of ``u``."""
Name = Literal["with_gradients", "joint", "values"]
"""A method of :class:`EndDensities`, of a batch and of ``u``."""


class CompiledDensities:
    """Methods of the densities, each recorded and fused when it is first called with a shape of ``u``.

    Args:
        initial: the density that chains begin with.

    Attributes:
        sizes: the numbers of data in a batch for which they are recorded; others are evaluated eagerly.
    """

    def __init__(self, initial: InitialDensity) -> None:
        self.sizes: set[int] = set()
        self._initial = initial
        self._fused: dict[Any, Fused | None] = {}
        self._recordable = True

    def get(self, name: Name, densities: EndDensities, batch: Batch, u: Tensor) -> Fused | None:
        """Return the function for data and positions of such shapes; None, after a warning, where there is none."""
        if not self._recordable or len(batch) not in self.sizes:
            return None
        key = name, u.shape, *((tensor.shape, tensor.dtype) for tensor in batch.tensors)
        if key not in self._fused:
            self._fused[key] = fused_densities(densities, self._initial, batch, u, name)
            self._recordable = self._fused[key] is not None
        return self._fused[key]


def fused_densities(
    densities: EndDensities, initial: InitialDensity, batch: Batch, u: Tensor, name: Name = "with_gradients"
) -> Fused | None:
    """Record and fuse a method of the densities; None, after a warning, where it cannot be recorded.

    Args:
        densities: both ends of the path.
        initial: the density that chains begin with.
        batch: data of the shapes that the function will be called with.
        u: positions of the chains, of the shape that the function will be called with.
        name: of the method.
    """
    method = getattr(densities, name)

    def eagerly() -> None:
        with same_random_numbers(batch.x), initial.requiring_defined():
            method(batch, u)

    return recorded(lambda: _fused(densities, method, batch, u), eagerly)


def _fused(densities: EndDensities, method: Callable[[Batch, Tensor], list[Tensor]], batch: Batch, u: Tensor) -> Fused:
    def of_tensors(*inputs: Tensor) -> list[Tensor]:
        return method(batch.with_tensors(*inputs[:-1]), inputs[-1])

    with FailuresAsNaN():
        recording = Recording(of_tensors, densities, [*batch.tensors, u])
    own = [tensor.detach() for tensor in recording.tensors]
    fused = fuse(lambda *all: recording(all[: len(own)], *all[len(own) :]), [*own, *batch.tensors, u])

    def outcome(function: Callable[..., Any], *own: Tensor) -> Outcome:
        with same_random_numbers(u):
            found = dict(enumerate(function(*own, *batch.tensors, u)))
        gradients = {place: value for place, value in found.items() if value.shape == u.shape}
        return {VALUE: {place: value for place, value in found.items() if place not in gradients}, GRADIENT: gradients}

    require_agreement(lambda: difference(outcome(of_tensors), outcome(fused, *own)))
    return lambda *inputs: fused(*own, *inputs)
