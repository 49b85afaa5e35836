"""The loop over epochs: until they are over, or the validation bound no longer improves."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from pyrovae.runs.run import Former
from pyrovae.training.checkpointing import Checkpointer
from pyrovae.training.history import History
from pyrovae.training.trainer import Trainer

BAR_DELAY = 2.0
"""Seconds after which the progress bar is shown."""


def train_epochs(
    trainer: Trainer,
    former: Former | None = None,
    checkpointer: Checkpointer | None = None,
    *,
    epochs: int,
    patience: int | None,
    progress: bool,
) -> History:
    """Train epoch after epoch, and give the pair the parameters of the best one.

    Args:
        trainer: makes the epochs.
        former: where an earlier run of this training stopped.
        checkpointer: writes what is needed to go on, where there is a run folder.
        epochs: how many at the most.
        patience: stop when the validation bound has not improved for this many epochs.
        progress: whether to show a progress bar.
    """
    module = trainer.steps.module
    history, best = History(module), {}
    keeps_best = trainer.held_out is not None or trainer.steps.averages is not None
    if former is not None:
        trainer.restore(former)
        history.metrics, best = former.metrics, former.best if keeps_best else {}
        history.best_epoch = history.best_of_all()
    with _bar(trainer, epochs, progress) as bar:
        while trainer.finished < epochs and (patience is None or trainer.finished - history.best_epoch < patience):
            history.metrics.append({"epoch": trainer.finished + 1, **trainer.epoch()})
            history.seconds_to_first_step = trainer.steps.update.seconds_to_first or math.nan
            if history.last_is_best():
                history.best_epoch, best = trainer.finished, trainer.weights() if keeps_best else {}
            if checkpointer is not None:
                checkpointer.end_epoch(history.metrics[-1], best=history.last_is_best())
            bar.set_postfix_str(_postfix(history.metrics[-1]), refresh=False)
            bar.update()
    trainer.steps.close()
    if best:
        module.load_state_dict(best)
    return history


@contextmanager
def _bar(trainer: Trainer, epochs: int, shown: bool) -> Iterator[tqdm]:
    """Show a bar of the epochs, in long runs: at once while steps are recorded, and else between two of them."""
    fusing, between = trainer.steps.gradient.compile, trainer.steps.progress.between
    delay = 0.0 if fusing else BAR_DELAY
    with tqdm(total=epochs, initial=trainer.finished, unit="epoch", disable=not shown, delay=delay) as bar:
        if fusing:
            bar.set_postfix_str("recording and fusing the step")

        def update_and() -> None:
            bar.update(0)
            between()

        trainer.steps.progress.between = update_and if shown else between
        yield bar


def _postfix(metrics: dict[str, float]) -> str:
    shown = "validation" if "validation_bound" in metrics else "train"
    return ", ".join(f"{name} {metrics[f'{shown}_{name}']:.2f}" for name in ("bound", "reconstruction", "kl"))
