"""Programs whose parameters carry no gradient, or that leave their buffers as they were."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyrovae.engine.call import Call, ProgramContext
from pyrovae.internals.torch_internals import own_buffers, own_parameters
from pyrovae.runtime.parameters import Program, keeping_its_own, owner, seeing, store_as_it_was, unregistered_is_meant


def stopping_model(call: Call) -> Call:
    """The call with the model's parameters stopped."""
    return replace(call, model=StopGradient(call.model))


def stopping_guide(call: Call) -> Call:
    """The call with the guide's parameters stopped."""
    return replace(call, guide=StopGradient(call.guide))


def keeping_buffers(call: Call) -> Call:
    """The call with a model that leaves its buffers, the statistics of batch normalisation, say, as they were."""
    return (
        call if isinstance(call.model, ProgramContext) else replace(call, model=StopGradient(call.model, parameters=False))
    )


class StopGradient(ProgramContext):
    """A program that leaves its buffers, and Pyro's store, as they were, and whose parameters carry no gradient.

    These are the buffers and parameters of the module that the program is or belongs to, those of the modules that it
    calls, and its ``pyro.param`` statements; with ``parameters=False`` the parameters carry their gradient.
    """

    def __init__(self, program: Program, parameters: bool = True) -> None:
        self.__wrapped__ = program
        self._program = keeping_its_own(program)
        self._parameters = parameters
        self._module = owner(program)
        self._kept: list[tuple[dict[str, Any], str, Tensor]] = []
        self._seen: set[nn.Module] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stopped = _StopParameterGradients() if self._parameters else nullcontext()
        with poutine.block(hide_types=["param"]), stopped, unregistered_is_meant(), store_as_it_was():
            return self._program(*args, **kwargs)

    def __enter__(self) -> Self:
        self._seeing = seeing(self._take)
        self._seeing.__enter__()
        if isinstance(self._module, nn.Module):
            self._take(self._module)
        return self

    def __exit__(self, *_: Any) -> None:
        self._seeing.__exit__(None, None, None)
        for tensors, name, value in self._kept:
            tensors[name] = value
        self._kept, self._seen = [], set()

    def _take(self, module: nn.Module) -> None:
        """Put tensors without a gradient in the place of a module's parameters, and copies in that of its buffers."""
        for part in module.modules():
            if part not in self._seen:
                self._seen.add(part)
                self._swap(own_parameters(part) if self._parameters else {}, torch.Tensor.detach)
                self._swap(own_buffers(part), torch.Tensor.clone)

    def _swap(self, tensors: dict[str, Any], made: Callable[[Tensor], Tensor]) -> None:
        present = [(name, value) for name, value in tensors.items() if value is not None]
        self._kept += [(tensors, name, value) for name, value in present]
        tensors.update({name: made(value) for name, value in present})


class _StopParameterGradients(Messenger):
    def _pyro_post_param(self, msg: Any) -> None:
        msg["value"] = msg["value"].detach()
