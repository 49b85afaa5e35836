"""Errors of programs that cannot be recorded, with the line of the user's own code."""

import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyro
import torch

_packages = [Path(str(package.__file__)).parent for package in (torch, pyro)]
_not_the_users = tuple(map(str, [*_packages, Path(__file__).parents[1]]))
"""Folders of torch, Pyro and this library."""


class NotRecordedError(Exception):
    """A program cannot be recorded; the message has the line and the reason."""


@contextmanager
def refused() -> Iterator[None]:
    """Turn every error of a program that cannot be recorded into a NotRecordedError."""
    try:
        yield
    except NotRecordedError:
        raise
    except Exception as error:
        raise NotRecordedError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """The kind of an error, where it was raised, and the first line of its message."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}{users_line(traceback.extract_tb(error.__traceback__))}: {first}"


def users_line(frames: Iterable[traceback.FrameSummary]) -> str:
    """The last line of the user's own code among the frames."""
    own = [frame for frame in frames if _is_the_users(frame.filename)]
    return f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""


def _is_the_users(filename: str) -> bool:
    standard = filename.startswith(sysconfig.get_paths()["stdlib"]) and "site-packages" not in filename
    return not standard and not filename.startswith((*_not_the_users, "<"))
