"""Arguments of programs, divided into tensors and everything else, which a recording fixes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

FIXED = (Number, np.generic, str, bytes, Enum, type(None), torch.dtype, torch.device, torch.Size)
"""Values that never change."""


class Arguments:
    """The arguments of one call, divided into tensors and values that never change.

    Tensors are looked for within tuples, lists and dictionaries too. Numbers, words, ``None``, enumerations and the like
    never change. Anything else, an object or a ``PackedSequence`` say, might, without anyone being told.

    Attributes:
        tensors: all tensors, in order.
        key: equal for calls that differ in the numbers in their tensors only; ``1``, ``1.0`` and ``True`` are three values.
        changeable: name and type of the first argument that is neither a tensor nor fixed; None where there is none.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.tensors: list[Tensor] = []
        self.changeable: str | None = None
        named = {f"argument {place + 1}": value for place, value in enumerate(args)}
        named.update({f"argument {name!r}": value for name, value in kwargs.items()})
        self.key = tuple((name, self._key(name, value)) for name, value in named.items())
        self._args, self._kwargs = args, kwargs

    def filled(self, tensors: Iterable[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments, positional and by name, with other tensors."""
        rest = iter(tensors)
        return [_filled(value, rest) for value in self._args], _filled(dict(self._kwargs), rest)

    def _key(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return value.shape, value.dtype, value.device, value.requires_grad
        if _is_container(value):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            return type(value), tuple((_value_key(at), self._key(f"{name}[{at!r}]", item)) for at, item in items)
        if not isinstance(value, FIXED):
            self.changeable = self.changeable or f"{name} is a {type(value).__name__}"
            return None
        return _value_key(value)


def devices(*values: Any) -> set[torch.device]:
    """The devices of all tensors and modules among values, or within them."""
    found = [value if isinstance(value, torch.device) else getattr(value, "device", None) for value in _leaves(values)]
    return {device for device in found if isinstance(device, torch.device)}


def _filled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Replace the tensors within a value."""
    if isinstance(value, Tensor):
        return next(tensors)
    if not _is_container(value):
        return value
    if isinstance(value, dict):
        return {name: _filled(item, tensors) for name, item in value.items()}
    items = [_filled(item, tensors) for item in value]
    return type(value)(*items) if _is_named(value) else type(value)(items)


def _is_container(value: Any) -> bool:
    """Whether a value is a plain container."""
    return type(value) in (tuple, list, dict) or _is_named(value)


def _is_named(value: Any) -> bool:
    """Whether a value is a named tuple; a ``PackedSequence``, made from one, is more than its fields."""
    return type(value).__bases__ == (tuple,) and hasattr(value, "_fields")


def _value_key(value: Any) -> Any:
    """A key that differs between equal values of another kind, such as 0.0 and -0.0, or 1 and True."""
    plain = isinstance(value, Number) and not isinstance(value, Enum)
    return type(value), repr(value) if plain else value


def _leaves(values: Any) -> Iterator[Any]:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, tuple | list | dict) and not isinstance(value, torch.Size):
            yield from _leaves(value)
        else:
            yield value
