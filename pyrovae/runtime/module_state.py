"""Snapshots of the state that modules keep beside their parameters, restored after a run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyrovae.errors import InputError
from pyrovae.internals.torch_internals import own_buffers
from pyrovae.runtime.parameters import Program, owner, seeing


@contextmanager
def reached(*programs: Program, numbers: bool = True) -> Iterator[list[nn.Module]]:
    """Collect the modules that programs are, or call meanwhile, and restore their state afterwards.

    Args:
        programs: what runs meanwhile.
        numbers: whether what modules keep in attributes, as Python numbers and tensors, is put back too; buffers always are.
    """
    snapshot = StateSnapshot()
    found = [module for module in map(owner, programs) if isinstance(module, nn.Module)]

    def see(module: nn.Module) -> None:
        found.append(module)
        snapshot.add(module)

    for module in found:
        snapshot.add(module)
    try:
        with seeing(see):
            yield found
    finally:
        snapshot.restore(numbers)


class StateSnapshot:
    """A snapshot of modules: their buffers, and the tensors and numbers in their attributes.

    Args:
        modules: those that are seen now.
    """

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        self._buffers: dict[nn.Module, dict[str, Tensor]] = {}
        self._attributes: dict[nn.Module, dict[str, Any]] = {}
        self._contents: dict[Tensor, Tensor] = {}
        for module in modules:
            self.add(module)

    def add(self, module: nn.Module) -> None:
        """Add a module and its parts to the snapshot, unless they are in it."""
        for part in module.modules():
            if part not in self._buffers:
                _require_shapes(part)
                self._buffers[part] = {name: value for name, value in own_buffers(part).items() if value is not None}
                self._attributes[part] = attributes(part)
                for value in (*self._buffers[part].values(), *self._attributes[part].values()):
                    if isinstance(value, Tensor) and value not in self._contents:
                        self._contents[value] = value.data.clone()

    def restore(self, numbers: bool = True) -> None:
        """Restore the state, unseen by autograd, whether tensors were changed in place or replaced."""
        for part, buffers in self._buffers.items():
            own_buffers(part).update(buffers)
            if numbers:
                vars(part).update(self._attributes[part])
        for value, before in self._contents.items():
            if value.layout != torch.strided or not torch.equal(value.data, before):
                value.data.copy_(before)


def _require_shapes(module: nn.Module) -> None:
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    if any(is_lazy(value) for value in own):
        raise without_shape(type(module).__name__)


def without_shape(network: str) -> InputError:
    """The error of a lazy network that was not called yet."""
    return InputError(
        f"{network} has parameters without a shape, which its first call gives them; expected a network that was called: "
        "call it once on a batch, network(x)"
    )


def attributes(module: nn.Module) -> dict[str, Any]:
    """The tensors and numbers that a module keeps beside its parameters and buffers."""
    kept = (name for name, value in vars(module).items() if isinstance(value, Tensor | int | float))
    return {name: vars(module)[name] for name in kept if name != "training"}
