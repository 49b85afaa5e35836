"""When a training writes to its run folder, and how it stops where it can go on."""

import io
import math
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any

import torch

from pyrovae.errors import InputError
from pyrovae.runs.checkpoint import require_storable
from pyrovae.runs.run import Former, Run
from pyrovae.runtime.processes import Processes
from pyrovae.training.signals import Interrupted, Signals
from pyrovae.training.trainer import Trainer

ASK_EVERY = 32
"""Steps after which several processes ask each other whether it is time for a checkpoint."""


@contextmanager
def opened(run: Run, processes: Processes) -> Iterator[Former | None]:
    """Within it the folder is open to process 0, which alone writes; all know what a former training left there.

    Raises:
        InputError: in all processes, where the folder cannot be opened.
    """
    with ExitStack() as stack:
        former, failed = None, None
        processes.gather(None)  # each has looked whether the folder is free
        if processes.rank == 0:
            try:
                former = stack.enter_context(run.opened())
            except InputError as error:
                failed = error
        former, failed = processes.gather((former, failed))[0]
        if failed is not None:
            raise failed
        yield former


class Keeping:
    """Keeps what a training needs to go on, after each epoch, every so many minutes within one, and when it is told to stop.

    Args:
        run: the folder, opened.
        trainer: what is trained.
        every: of so many epochs one checkpoint is kept for ever.
        minutes: between checkpoints within an epoch; none if None.
        signals: what the process was told.

    Raises:
        InputError: where the optimiser or its schedule keeps something that cannot be read back without unpickling.
    """

    def __init__(self, run: Run, trainer: Trainer, *, every: int | None, minutes: float | None, signals: Signals) -> None:
        self._run = run
        self._trainer = trainer
        self._every = every
        self._seconds = math.inf if minutes is None else 60.0 * minutes
        self._signals = signals
        self._saved = monotonic()
        self._steps = 0
        self._writes = trainer.steps.processes.rank == 0
        self._first = True
        require_storable(trainer.steps.module.state_dict())
        _require_plain(trainer.state())
        trainer.steps.between = self._between

    def epoch(self, metrics: dict[str, Any], *, best: bool) -> None:
        """An epoch is over.

        Raises:
            Interrupted: where the process was told to stop.
        """
        self._write(lambda: self._run.log(metrics))
        keep = self._every is not None and self._trainer.finished % self._every == 0
        self._save(best=best, keep=keep)
        self._stop_if_told()

    def _between(self) -> None:
        """A step is over."""
        if self._is_told() or self._is_due():
            if not self._trainer.rewinds:
                self._save()
            self._stop_if_told()

    def _is_told(self) -> bool:
        """Whether a process was told to stop, and all know."""
        if self._signals.caught:
            self._trainer.steps.wish_to_stop()
        return self._trainer.steps.stop_agreed

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint; several processes ask each other only now and then."""
        due, processes = monotonic() - self._saved >= self._seconds, self._trainer.steps.processes
        if processes.number == 1 or self._seconds == math.inf:
            return due
        self._steps += 1
        return self._steps % ASK_EVERY == 0 and processes.any(due)

    def _save(self, **flags: bool) -> None:
        trainer = self._trainer
        weights, state = trainer.weights(), trainer.state()
        if self._first:
            _require_plain(state)  # most optimisers have a state only after a step
        self._first = False
        self._write(lambda: self._run.save(trainer.place, weights, state, **flags))
        self._saved = monotonic()

    def _write(self, write: Callable[[], None]) -> None:
        """Let process 0 write, and all know where it could not."""
        failed = None
        if self._writes:
            try:
                write()
            except InputError as error:
                failed = error
        failed = self._trainer.steps.processes.gather(failed)[0]
        if failed is not None:
            raise failed

    def _stop_if_told(self) -> None:
        if self._is_told():
            epoch, batches = self._trainer.place if not self._trainer.rewinds else (self._trainer.finished, 0)
            said = f"stopped after {epoch} epochs" + (f" and {batches} batches" if batches else "")
            remedy = f"go on with `pyrovae train --resume {self._run.path}` (resume=True)"
            raise Interrupted(self._signals.caught or signal.SIGTERM, f"{said}; {remedy}")


def _require_plain(state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise InputError(
            "the optimiser or its schedule keeps something else than numbers, strings and tensors, which a checkpoint "
            f"does not hold ({str(error).partition(chr(10))[0]}); take others, or train without a run folder"
        ) from error
