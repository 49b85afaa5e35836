"""Files that someone else may have written: opened where they are plain files, and read no further than a limit."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError

JSON = 2**20
"""Largest size of a file in JSON, in bytes."""
remedy = "the run is incomplete: copy it again, or train again"


@contextmanager
def opened(path: Path, limit: int | None = None) -> Iterator[BufferedReader]:
    """Open a plain file for reading; never a pipe or a device, which would wait, or never end.

    Raises:
        InputError: for a path that cannot be opened or is no plain file, and for a file of more bytes than the limit.
    """
    try:
        file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (closed below)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a file: {remedy}") from error
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is a pipe or a device; expected a plain file: {remedy}")
        if limit is not None and found.st_size > limit:
            raise InputError(f"{path} has {found.st_size:,} bytes; expected {limit:,} at the most: {remedy}")
        yield file


def read_text(path: Path, limit: int) -> str:
    """Read the text of a file in UTF-8.

    Raises:
        InputError: as :func:`opened`, and for what is no text.
    """
    with opened(path, limit) as file:
        try:
            return file.read(limit).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}); expected a text in UTF-8: {remedy}") from error


def read_json(path: Path, remedy: str = remedy) -> dict[str, Any]:
    """Read the object in a file of JSON.

    Raises:
        InputError: as :func:`read_text`, and for what is no object in JSON.
    """
    return parse_json(read_text(path, JSON), str(path), remedy)


def parse_json(text: str, name: str, remedy: str = remedy) -> dict[str, Any]:
    """Parse an object in JSON, nested no deeper than the interpreter can follow.

    Raises:
        InputError: for what is none.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} cannot be read ({error}); expected an object in JSON: {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{name} holds no object; expected one in JSON: {remedy}")
    return content


def require_plain(folder: Path) -> None:
    """Raise an InputError if a folder holds anything but plain files and folders of its own.

    A link that leads out of the folder would have another file read, or overwritten, in the place of the one that is
    named; a pipe would keep one waiting.
    """
    home = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if fault := _fault(os.path.join(parent, name), home):
                raise InputError(
                    f"{os.path.join(parent, name)!r} {fault}; expected plain files and folders in {folder}: remove it, or "
                    "put what it stands for in its place"
                )


def _fault(path: str, home: str) -> str | None:
    """What is wrong with an entry of a folder, if something is."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:  # a training that goes on there has replaced it
        return None
    if not os.path.basename(path).isprintable():
        return "has a name that cannot be printed"
    if stat.S_ISLNK(kind):
        if not os.path.realpath(path).startswith(home + os.sep):
            return "is a link that leads out of the folder"
        return None if os.path.exists(path) else "is a link that leads nowhere"
    return None if stat.S_ISREG(kind) or stat.S_ISDIR(kind) else "is a pipe, a socket or a device"


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
