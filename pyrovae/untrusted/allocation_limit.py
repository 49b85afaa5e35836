"""A limit on what is allocated while a pair is built from settings that someone else wrote.

A line of settings may ask for a layer of a million million weights. A pair that was trained and kept has no more than its
file of weights holds, so what is built of it is allowed that, several times over, for what initial values need beside it.
"""

from typing import Any

import torch
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.internals.torch_internals import TorchDispatchMode, schema_of, tree_leaves, tree_map_only

FREE = 2**28
"""Bytes that may be allocated for a pair however small its weights: 256 MiB."""
TIMES = 16
"""Multiple of the bytes of its weights that may be allocated beyond that."""
LEAST = 2**14
"""Bytes that every operation counts for, so that a long loop of small ones ends too."""


class Budget(TorchDispatchMode):
    """A mode that limits the bytes of all tensors made in it; each is counted before it is made.

    Args:
        weights: the tensors that the pair had when it was saved.
        source: where they are from, for the message.

    Raises:
        InputError: where more is asked for.
    """

    def __init__(self, weights: dict[str, Tensor], source: Any) -> None:
        super().__init__()
        self._held = sum(value.numel() * value.element_size() for value in weights.values())
        self._left = FREE + TIMES * self._held
        self._source = source

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._left -= LEAST + _new_bytes(func, args, kwargs)
        if self._left < 0:
            raise InputError(
                f"{self._source} describes a pair that is far larger than its weights, which have {self._held:,} bytes; "
                "expected the settings that it was trained with: copy the run again"
            )
        return func(*args, **kwargs)


def _new_bytes(func: Any, args: Any, kwargs: dict[str, Any]) -> int:
    """The bytes that an operation will allocate, found by running it without numbers."""
    schema = schema_of(func)
    if not schema.returns or all(returned.alias_info is not None for returned in schema.returns):
        return 0
    there = {"device": "meta"} if any(argument.name == "device" for argument in schema.arguments) else {}
    args, kwargs = tree_map_only(Tensor, lambda value: value.detach().to("meta"), (args, kwargs))
    kwargs = {name: value for name, value in kwargs.items() if name not in ("generator", "pin_memory")} | there
    try:
        made = func(*args, **kwargs)
    except (NotImplementedError, RuntimeError, TypeError):  # its size depends on numbers, and so is no larger than they are
        return 0
    return sum(value.numel() * value.element_size() for value in tree_leaves(made) if isinstance(value, torch.Tensor))
