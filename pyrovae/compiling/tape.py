"""Operations that are run again without the Python that ran them first."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyrovae.compiling.adam_kernel import AdamKernel, adam_kernel
from pyrovae.internals.torch_internals import TorchDispatchMode, add_to_each, python_function_of, schema_of

Call = tuple[Callable[..., Any], list[Any], dict[str, Any], list[tuple[int, list[int]]]]
"""A function, its arguments, and which of these are lists of given tensors, with the places of these."""


class Tape(TorchDispatchMode):
    """Within it, in-place operations are noted as they run, to be run again on other tensors in the place of ``given``.

    Adam's update is this library's kernel where that can be, then and again.

    Attributes:
        complete: whether there is nothing but operations that change tensors which stay, and give nothing back. Only then
            is playing the tape what running the Python again would be.
    """

    def __init__(self, given: Sequence[Tensor | None]) -> None:
        super().__init__()
        self.complete = True
        self._absent = [value is None for value in given]
        self._places = {id(value): place for place, value in enumerate(given) if value is not None}
        self._calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kernel = adam_kernel(func, args, kwargs)
        if func.namespace == "aten":
            schema = schema_of(func)
            self.complete &= schema.is_mutable and not schema.returns
            slots = [(i, self._slots(arg)) for i, arg in enumerate(args) if isinstance(arg, list) and self._slots(arg)]
            again = python_function_of(func) if kernel is None else self._counting(kernel, args)
            self._calls.append((again, list(args), kwargs or {}, slots))
        return (kernel or func)(*args, **(kwargs or {}))

    def fits(self, given: Sequence[Tensor | None]) -> bool:
        """Whether the operations can be run on these: they are complete, and the same of them are missing."""
        return self.complete and self._absent == [value is None for value in given]

    def play(self, given: Sequence[Tensor | None]) -> None:
        """Run the operations again."""
        for func, args, kwargs, slots in self._calls:
            for position, places in slots:
                args[position] = [given[place] for place in places]
            func(*args, **kwargs)

    def _counting(self, kernel: AdamKernel, args: Sequence[Any]) -> Callable[..., None]:
        """Let the kernel count the steps too, where that was the operation before it, and is noted as one."""
        func, before, *_ = self._calls[-1] if self._calls else (None, [])
        if func is python_function_of(add_to_each) and before[1] == 1 and [*map(id, before[0])] == [*map(id, args[5])]:
            self._calls.pop()
            return kernel.count_and_update
        return kernel

    def _slots(self, arg: list[Any]) -> list[int]:
        """The places of the given tensors of which a list consists."""
        places = [self._places.get(id(value)) for value in arg]
        given = [place for place in places if place is not None]
        self.complete &= len(given) in (0, len(places))
        return given
