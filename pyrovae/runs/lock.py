"""One training a folder: a lock that says whose it is, and that does not outlive its process."""

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

from pyrovae.errors import InputError

BEAT = 10.0
"""Seconds between signs of life."""
SILENCE = 120.0
"""Seconds without one after which a process on another host is taken for dead."""

_held: set[str] = set()
"""The locks of this process."""


class Lock:
    """The right to write in a run folder: a file with host and process, whose time is that of the last sign of life.

    A lock is stale if its process, on this host, is no more, or if one on another host has been silent for two minutes.
    It is then taken over; a process that was only asleep finds that out before it writes.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock.json"
        self._id = uuid.uuid4().hex
        self._over = threading.Event()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            InputError: where a live process has it, naming that.
        """
        while not self._create():
            holder = _read(self.path)
            if holder is not None and self._is_alive(holder):
                raise InputError(
                    f"{self.path.parent} is being trained by process {holder.get('process')} on {holder.get('host')}; wait "
                    f"for it, or stop it, or name another run folder (where nothing is training: remove {self.path})"
                )
            self._remove(holder)
        _held.add(self._id)
        threading.Thread(target=self._beat, daemon=True).start()

    def check(self) -> None:
        """Raise an InputError where another process has taken the lock over."""
        holder = _read(self.path)
        if holder is None or holder.get("id") != self._id:
            what = "is gone" if holder is None else f"is that of process {holder.get('process')} on {holder.get('host')} now"
            raise InputError(f"{self.path} {what}: this training writes no more; train in another run folder")

    def release(self) -> None:
        """Give the lock back, if it is still ours."""
        self._over.set()
        _held.discard(self._id)
        if (_read(self.path) or {}).get("id") == self._id:
            with suppress(OSError):  # where it cannot be removed it is stale, as soon as this process is over
                self.path.unlink()

    def _create(self) -> bool:
        """Make the file, unless there is one."""
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}); let this folder be written") from error
        mine = {"host": socket.gethostname(), "process": os.getpid(), "began": _began(os.getpid()), "id": self._id}
        with os.fdopen(descriptor, "w") as file:
            json.dump(mine, file)
        return True

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        process = holder.get("process")
        if holder.get("host") == socket.gethostname() and isinstance(process, int):
            began = _began(process)
            is_ours = process == os.getpid()
            return holder.get("id") in _held if is_ours else began is not None and began == holder.get("began")
        with suppress(OSError):
            return time() - self.path.stat().st_mtime < SILENCE
        return False

    def _remove(self, holder: dict[str, Any] | None) -> None:
        """Move a stale lock away, and back if it was another's by then."""
        aside = self.path.with_name(f".lock-{self._id}.partial")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            if _read(aside) == holder:
                aside.unlink()
            else:
                with suppress(OSError):  # there is another by now
                    os.link(aside, self.path)
                aside.unlink()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                os.utime(self.path)


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says; None where there is none, and nothing where it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _began(process: int) -> str | None:
    """When a process began, as its system says it, for numbers are used again; None where there is no such process."""
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            state, *rest = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            return None if state in "ZX" else rest[18]
        return None
    try:  # where there is no /proc, a process of that number must do
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # there is one, and it is another user's
        return "unknown"
    return "unknown"
