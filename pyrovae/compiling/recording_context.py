"""Whether a program is being recorded, and the settings of Pyro and torch while it is."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import pyro
import torch

_is_recording: ContextVar[bool] = ContextVar("is_recording", default=False)


@contextmanager
def recording_settings() -> Iterator[None]:
    """Switch off validation, which looks at numbers, and oneDNN, whose recurrent layers cannot be fused."""
    token = _is_recording.set(True)
    compiled = "torch._dynamo" in sys.modules  # parts that torch compiles are recorded as they were written
    try:
        with (
            pyro.validation_enabled(False),
            torch.backends.mkldnn.flags(enabled=False),
            torch._dynamo.config.patch(error_on_nested_fx_trace=False) if compiled else nullcontext(),
        ):
            yield
    finally:
        _is_recording.reset(token)


def is_recording() -> bool:
    """Whether a program is being recorded, here or by torch, so that numbers in tensors must not be looked at."""
    return torch.compiler.is_compiling() or _is_recording.get()
