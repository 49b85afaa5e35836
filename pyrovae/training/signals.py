"""Signals that stop a training at a place from which it can be resumed."""

import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self


class Interrupted(KeyboardInterrupt):
    """Training stopped by a signal, after a checkpoint.

    Attributes:
        signal: SIGINT, of Ctrl-C, or SIGTERM.
    """

    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.signal = signal.Signals(number)


class Signals:
    """Context that notes the first SIGINT or SIGTERM, to be looked at between steps; a second one has its usual effect.

    Only the main thread of a process may choose what signals do; in another one nothing is changed.

    Attributes:
        caught: the number of the signal that came; 0 as long as none came.
    """

    def __init__(self) -> None:
        self.caught = 0
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        self._restore()
        said = f"\n{signal.Signals(number).name}: this step is ended and a checkpoint is kept; once more to end at once"
        with suppress(OSError, RuntimeError):  # no terminal any more, or in the midst of another line
            print(said, file=sys.stderr, flush=True)

    def _restore(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)
        self._former = {}
