"""Numbers that Python reads from tensors while a program is recorded, and whether its output depends on them."""

import math
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pyrovae.compiling.recording_context import is_recording
from pyrovae.compiling.refusals import NotRecordedError, users_line
from pyrovae.compiling.repeatability import are_equal
from pyrovae.runtime.fixed_randomness import READINGS
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers

_WHOLE = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}
"""Functions that hand all numbers in a tensor to Python, unseen by a recording of operations."""


class PythonReads(TorchFunctionMode):
    """A mode that notes what Python reads from tensors, ``int(x.max())`` say, or hands out what was noted before.

    Args:
        known: what is read, in order; empty to note it.
        shift: added to what is read.
        most: how often a tensor may be looked at, so that a loop that ends at a certain number ends at others too.
    """

    def __init__(self, known: Sequence[Any] = (), shift: int = 0, most: float = math.inf) -> None:
        super().__init__()
        self.read: list[Any] = []
        self.looks = 0
        self._most = most
        self._known, self._shift = iter(known), shift

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WHOLE and is_recording():
            where = users_line(traceback.extract_stack())
            raise NotRecordedError(f"{func.__name__}{where} hands the numbers in a tensor to Python")
        if func is F.one_hot and is_recording():
            return _one_hot(*args, **(kwargs or {}))
        self.looks += func in READINGS
        if self.looks > self._most:
            raise NotRecordedError("a loop in Python does not end where another number stands for one that it reads")
        if func not in READINGS - {Tensor.__bool__, Tensor.tolist}:
            return func(*args, **(kwargs or {}))
        number = next(self._known, None)
        if number is None:
            number = func(*args, **(kwargs or {})) + self._shift
        self.read.append(number)
        return number


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """``torch.nn.functional.one_hot``, without its look at the numbers."""
    if num_classes < 1:
        where = users_line(traceback.extract_stack())
        raise NotRecordedError(f"one_hot{where} counts the classes among the numbers in a tensor; pass num_classes")
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


def reads_without_effect(function: Callable[..., Any], module: nn.Module, inputs: Sequence[Tensor]) -> list[Any]:
    """The numbers that Python reads from tensors, if other numbers in their place leave the output as it is; else none.

    Such is the number of trials of a multinomial distribution whose value is observed: its density does not need it.
    """
    outputs, reads, most = [], [], math.inf
    for shift in (0, 1, -1):
        with same_random_numbers(*inputs), reached(module), PythonReads(shift=shift, most=most) as numbers:
            outputs.append(_attempted(function, inputs, shift))
        reads.append(numbers.read)
        most = 10 * numbers.looks + 100 if not shift else most
        if not numbers.read:
            return []
    return reads[0] if all(are_equal(outputs[0], other) for other in outputs[1:]) else []


def _attempted(function: Callable[..., Any], inputs: Sequence[Tensor], shift: int) -> Any:
    """The function's output; ``None`` where a shifted number makes it fail."""
    try:
        return function(*inputs)
    except Exception:
        if not shift:
            raise
        return None
