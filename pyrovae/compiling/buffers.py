"""Buffers that a recorded program replaces, written to in place instead."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae.compiling.refusals import NotRecordedError
from pyrovae.internals.torch_internals import own_buffers

Buffer = tuple[dict[str, Tensor | None], str, Tensor]
"""Where a buffer is kept, under which name, and the tensor."""


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """The parameters and buffers of modules, each once."""
    found = (value for module in modules for value in (*module.parameters(), *module.buffers()))
    return [*{id(value): value for value in found}.values()]


def buffers_of(modules: Iterable[nn.Module]) -> Iterator[Buffer]:
    """The buffers of modules and their parts."""
    for part in {part: None for module in modules for part in module.modules()}:
        for name, value in own_buffers(part).items():
            if value is not None:
                yield own_buffers(part), name, value


def in_place(function: Callable[..., Any], modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Any:
    """Run a function, and write tensors that it puts in the place of buffers into those buffers."""
    before = [*buffers_of(modules)]
    outputs = function(*inputs)
    write_back(before)
    return outputs


@torch.no_grad()
def write_back(former: Iterable[Buffer]) -> None:
    """Write the numbers of buffers that were replaced into the former ones, and restore these.

    Raises:
        NotRecordedError: where a buffer was replaced by a tensor of another shape, type or device.
    """
    for buffers, name, value in former:
        if (new := buffers.get(name)) is not value:
            if new is None or (new.shape, new.dtype, new.device) != (value.shape, value.dtype, value.device):
                found = "None" if new is None else f"{new.dtype} of shape {tuple(new.shape)} on {new.device}"
                raise NotRecordedError(f"buffer {name!r} becomes another kind of tensor, {found}")
            value.copy_(new)
            buffers[name] = value
