"""A cache of the plates of a pair, for all arguments that could change how its particles run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
from torch import Tensor, nn

from pyrovae.engine.plates import Plates
from pyrovae.engine.validation import find_plates, find_plates_again
from pyrovae.internals.torch_internals import tree_leaves
from pyrovae.runtime.module_state import reached, without_shape
from pyrovae.runtime.parameters import Program


@contextmanager
def _shapes_wanted() -> Iterator[None]:
    """Turn Pyro's error about a lazy layer into one that says what to do."""
    try:
        yield
    except ValueError as error:
        if "uninitialized parameter" not in str(error):
            raise
        raise without_shape("a network") from error


class PlatesCache:
    """A cache of one pair's plates, by the arguments and network modes that could change how particles run.

    An axis that is named from the left can be right by accident where the batch has a size that a parameter has too, or 1;
    and what is no tensor, or whether a network trains, may decide what a program does.

    Attributes:
        modules: all networks that the programs call, and their parts.
    """

    def __init__(self) -> None:
        self._found: dict[Any, Plates] = {}
        self.modules: list[nn.Module] = []
        self._sizes: set[int] = set()

    @property
    def modes(self) -> tuple[bool, ...]:
        """For each network whether it is in training mode."""
        return tuple(module.training for module in self.modules)

    def known(self, args: Any, kwargs: Any) -> Plates | None:
        """The plates for these arguments if they are in the cache; else None."""
        return self._found.get(self._key(args, kwargs))

    def at(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Plates:
        """The plates for these arguments, from the cache or by running the pair.

        Raises:
            InputError: at the first call, every error of :func:`~pyrovae.engine.validation.find_plates`.
        """
        if not self._found:
            return self._first(model, guide, args, kwargs)
        key = self._key(args, kwargs)
        if key not in self._found:
            self._found[key] = find_plates_again(model, guide, args, kwargs, next(iter(self._found.values())))
        return self._found[key]

    def _first(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Plates:
        with reached(model, guide) as modules, _shapes_wanted():
            plates = find_plates((model, guide), *args, **kwargs)
        self.modules = list(dict.fromkeys(part for module in modules for part in module.modules()))
        self._sizes = {size for value in self._tensors() for size in value.shape}
        self._found[self._key(args, kwargs)] = plates
        return plates

    def _tensors(self) -> Iterator[Tensor]:
        for module in self.modules:
            yield from (*module.parameters(recurse=False), *module.buffers(recurse=False))
        yield from (value for _, value in pyro.get_param_store().named_parameters())

    def _key(self, args: Any, kwargs: Any) -> tuple[Any, ...]:
        leaves = tree_leaves((args, kwargs))
        shapes = [value.shape for value in leaves if isinstance(value, Tensor)]
        others = tuple((type(value), repr(value)) for value in leaves if isinstance(value, bool | int | float | str))
        return self.modes, others, *(tuple(size if size == 1 or size in self._sizes else 0 for size in s) for s in shapes)
