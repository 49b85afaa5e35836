"""The precision that networks compute in: that of their numbers, or a faster one inside matrix products."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pyrovae.errors import InputError

Precision = Literal["highest", "high", "medium", "bfloat16"]
precisions = ("highest", "high", "medium", "bfloat16")
_layers = {
    functional.linear,
    *(functional.conv1d, functional.conv2d, functional.conv3d),
    *(functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
}


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Let networks of float32 compute in another precision; densities and log weights stay float32.

    ``highest`` is float32. ``high`` and ``medium`` are torch's settings of that name for float32 matrix products (TF32, and
    bfloat16 where the processor has it), with TF32 in convolutions. ``bfloat16`` hands every linear and convolutional
    layer its input and its weights in bfloat16, whatever hardware, and takes its output as float32: a relative error of
    2^-9 a number. ``torch.autocast`` around it is without effect; a network's own is not.

    Raises:
        InputError: for another word.
    """
    if precision not in precisions:
        raise InputError(f"precision is {precision!r}; expected one of {', '.join(map(repr, precisions))}")
    exact = precision in ("highest", "bfloat16")
    with (
        _without_autocast(),
        _products("highest" if exact else precision),
        _Bfloat16Layers() if precision == "bfloat16" else nullcontext(),
    ):
        yield


@contextmanager
def _without_autocast() -> Iterator[None]:
    with ExitStack() as stack:
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Torch's setting for products of float32 matrices, and with it that for convolutions."""
    try:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError as error:  # they are mixed with torch's newer settings, which are then left as they are
        if precision != "highest":
            raise InputError(
                f"precision is {precision!r}, and torch's fp32_precision has been set too; set one of the two"
            ) from error
        yield
        return
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


class _Bfloat16Layers(TorchFunctionMode):
    """Linear and convolutional layers of float32 compute in bfloat16."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _layers:
            return func(*args, **(kwargs or {}))
        kwargs = kwargs or {}
        result = func(*map(_narrow, args), **{name: _narrow(value) for name, value in kwargs.items()})
        return result.to((args[0] if args else kwargs["input"]).dtype)


def _narrow(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value
