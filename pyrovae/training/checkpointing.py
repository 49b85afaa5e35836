"""When a training writes checkpoints to its run folder, and how it stops so that it can be resumed."""

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
    """Open the folder in process 0, which alone writes; yield in all processes what a former training left there.

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


class Checkpointer:
    """Writes checkpoints after each epoch, every so many minutes within one, and when the process is told to stop.

    Args:
        run: the folder, opened.
        trainer: what is trained.
        every: of so many epochs one checkpoint is kept for ever.
        minutes: between checkpoints within an epoch; none if None.
        signals: those that the process was sent.

    Raises:
        InputError: where the optimiser or its schedule has a state that cannot be read back without unpickling.
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
        trainer.steps.progress.between = self._between_steps

    def end_epoch(self, metrics: dict[str, Any], *, best: bool) -> None:
        """Write the metrics of an epoch that is over, and a checkpoint.

        Raises:
            Interrupted: where the process was told to stop.
        """
        self._write(lambda: self._run.log(metrics))
        keep = self._every is not None and self._trainer.finished % self._every == 0
        self._save(best=best, keep=keep)
        self._stop_if_signalled()

    def _between_steps(self) -> None:
        """Write a checkpoint, and stop, where it is time."""
        if self._must_stop() or self._is_due():
            if not self._trainer.rewinds:
                self._save()
            self._stop_if_signalled()

    def _must_stop(self) -> bool:
        """Whether a process was told to stop, and all know of it."""
        if self._signals.caught:
            self._trainer.steps.stop.request()
        return self._trainer.steps.stop.agreed

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

    def _stop_if_signalled(self) -> None:
        if self._must_stop():
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
