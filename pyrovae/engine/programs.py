"""What people hand over as a model with its guide."""

from typing import Any

from pyrovae.errors import InputError
from pyrovae.runtime.parameters import Program


def programs(name: str, value: Any, expected: str = "(model, guide), or a VAE") -> tuple[Program, Program]:
    """The two programs of a pair ``(model, guide)`` or of a ``VAE``.

    Raises:
        InputError: for anything else, which says that it is called ``name`` and what was ``expected``.
    """
    is_pair = isinstance(value, tuple) and len(value) == 2
    model, guide = value if is_pair else (getattr(value, "model", None), getattr(value, "guide", None))
    if not (callable(model) and callable(guide)):
        raise InputError(f"model {name!r} is a {type(value).__name__}; expected {expected}")
    return model, guide
