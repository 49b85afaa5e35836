"""The way back to eager runs, with one warning, for programs that cannot be recorded, or whose recording is wrong."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from pyrovae.compiling.refusals import NotRecordedError, refused

Made = TypeVar("Made")


class NotCompiledWarning(UserWarning):
    """A program could not be recorded, or came in too many shapes, and runs eagerly."""


def require_agreement(look: Callable[[], str | None]) -> None:
    """Raise a NotRecordedError where a recording fails when it is run, or gives another result than the programs.

    Args:
        look: runs both on the same random numbers, and says what is different.
    """
    with refused():
        if (found := look()) is not None:
            raise NotRecordedError(f"at the same random numbers, recorded they give something else: {found}")


def recorded(make: Callable[[], Made], eagerly: Callable[[], Any]) -> Made | None:
    """Return what ``make`` makes; None, with one warning that says why, where it cannot and the programs do run eagerly.

    Args:
        make: records, and fuses, what is to be computed.
        eagerly: computes it, and leaves everything as it was; whatever error it raises comes alone, since a program that
            fails by itself is not to be excused for not being recorded.
    """
    try:
        return make()
    except NotRecordedError as error:
        why = error
    eagerly()
    warn_of_eager(f"they cannot be recorded: {why}")
    return None


def warn_of_eager(why: str) -> None:
    """Warn that the programs run eagerly, and why."""
    warnings.warn(f"the programs run eagerly: {why}", NotCompiledWarning, stacklevel=2)
