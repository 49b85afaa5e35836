"""Whether a program is being recorded, and the settings of Pyro and torch while it is."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import pyro
import torch

from pyrovae.internals.torch_internals import compiled_parts_recorded_as_written, has_imported_dynamo

_is_recording: ContextVar[bool] = ContextVar("is_recording", default=False)


@contextmanager
def recording_settings() -> Iterator[None]:
    """Switch off validation, which looks at numbers, and oneDNN, whose recurrent layers cannot be fused."""
    token = _is_recording.set(True)
    try:
        with (
            pyro.validation_enabled(False),
            torch.backends.mkldnn.flags(enabled=False),
            compiled_parts_recorded_as_written() if has_imported_dynamo() else nullcontext(),
        ):
            yield
    finally:
        _is_recording.reset(token)


def is_recording() -> bool:
    """Whether a program is being recorded, here or by torch, so that numbers in tensors must not be looked at."""
    return torch.compiler.is_compiling() or _is_recording.get()
