"""A lock that lets one process train in a folder; the operating system releases it when the process ends."""

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pyrovae.errors import InputError

LOCKED = ".lock"
"""Name of the file that is locked; it stays."""
HOLDER = "lock.json"
"""Name of the file that says which process holds the lock."""


class Lock:
    """A lock on a run folder, held by the process that trains there.

    The lock is one of the operating system on a file, by :mod:`filelock`: no process can take it from a live one, whatever
    their clocks, hosts and process numbers are, and that of a process that ended is free.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCKED
        self._holder = folder / HOLDER
        self._lock = FileLock(self.path, timeout=0)
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            InputError: where another holds it, naming the process; where the folder cannot be written.
        """
        try:
            self._lock.acquire()
            self._holder.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
            self._file = self.path.stat().st_ino
        except Timeout as error:
            raise InputError(
                f"{self.path.parent} is being trained by {_described(self._holder)}; wait for it, or stop it, or name "
                "another run folder"
            ) from error
        except OSError as error:
            self._lock.release()
            raise InputError(f"{self.path} cannot be written ({error.strerror}); let this folder be written") from error

    def check(self) -> None:
        """Raise an InputError where the file that is locked was removed, so that another may train there."""
        with suppress(OSError):
            if self.path.stat().st_ino == self._file:
                return
        raise InputError(f"{self.path} is gone: this training writes no more; train in another run folder")

    def release(self) -> None:
        """Give the lock back."""
        with suppress(InputError):
            self.check()
            with suppress(OSError):
                self._holder.unlink()
        self._lock.release()


def _described(path: Path) -> str:
    """The process that a file names."""
    try:
        found = json.loads(path.read_text())
        return f"process {found['process']} on {found['host']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
