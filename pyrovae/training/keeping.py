"""When a training writes to its run folder, and how it stops where it can go on."""

import io
import pickle
from time import monotonic
from typing import Any

import torch

from pyrovae.errors import InputError
from pyrovae.training.interrupt import Interrupted, Signals
from pyrovae.training.run import Run
from pyrovae.training.trainer import Trainer


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
        self._seconds = float("inf") if minutes is None else 60.0 * minutes
        self._signals = signals
        self._saved = monotonic()
        _require_plain(trainer.state())
        trainer.steps.between = self._between

    def epoch(self, metrics: dict[str, Any], *, best: bool) -> None:
        """An epoch is over.

        Raises:
            Interrupted: where the process was told to stop.
        """
        self._run.log(metrics)
        keep = self._every is not None and self._trainer.finished % self._every == 0
        self._save(best=best, keep=keep)
        self._stop_if_told()

    def _between(self) -> None:
        """A step is over."""
        if self._signals.caught or monotonic() - self._saved > self._seconds:
            self._save()
            self._stop_if_told()

    def _save(self, **flags: bool) -> None:
        trainer = self._trainer
        self._run.save(trainer.place, trainer.weights(), trainer.state(), **flags)
        self._saved = monotonic()

    def _stop_if_told(self) -> None:
        if self._signals.caught:
            epoch, batches = self._trainer.place
            said = f"stopped after {epoch} epochs" + (f" and {batches} batches" if batches else "")
            remedy = f"go on with `pyrovae train --resume {self._run.path}` (resume=True)"
            raise Interrupted(self._signals.caught, f"{said}; {remedy}")


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
