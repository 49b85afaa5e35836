"""Training: the one function that a user calls.

The settings are checked (:mod:`~pyrovae.training.settings`), the programs are run on the data
(:mod:`~pyrovae.training.dry_run`), and then a trainer makes epochs (:mod:`~pyrovae.training.trainer`) of steps
(:mod:`~pyrovae.training.steps`) until the loop ends (:mod:`~pyrovae.training.loop`).
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.objectives import Objective
from pyrovae.runs.run import Run
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import modes_kept
from pyrovae.runtime.precision import Precision, computing_in
from pyrovae.runtime.seeds import seeded
from pyrovae.training.checkpointing import Checkpointer, opened
from pyrovae.training.dry_run import check_last_batch, dry_run, warn_of_evaluation_mode
from pyrovae.training.history import History
from pyrovae.training.loop import train_epochs
from pyrovae.training.optimizer import make_optimizer
from pyrovae.training.random_numbers import seed_of_all
from pyrovae.training.settings import as_objective, as_run, require_amortized, require_settings
from pyrovae.training.signals import Signals
from pyrovae.training.splits import as_split, with_fixed_draw
from pyrovae.training.steps import Steps
from pyrovae.training.trainer import Trainer

WORTHWHILE = 3000
"""The number of steps from which on recording and fusing them is expected to save time."""


@takes_pair
def fit(
    pair: PairLike,
    data: Any,
    validation: Any = None,
    *,
    objective: Objective | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = partial(torch.optim.Adam, lr=1e-3),
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
    nonfinite: Literal["stop", "skip", "rewind"] = "stop",
    patience: int | None = None,
    workers: int = 0,
    run: Run | str | Path | None = None,
    resume: bool = False,
    keep_every: int | None = None,
    keep_minutes: float | None = 10.0,
    seed: int = 0,
    device: str | None = None,
    compile: bool | None = None,
    precision: Precision = "highest",
    progress: bool = True,
) -> History:
    r"""Train a pair of Pyro programs on data, in place.

    Minimises the mean over the batch of minus the objective's bound with a torch optimiser, one pass over the data an
    epoch. Where there are validation data, the pair ends with the parameters of the epoch whose validation bound was best.

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs, each called with one batch ``x``
            of shape ``(B, *event_shape)``.
        data: a tensor or array ``(N, *event_shape)``, a ``torch.utils.data.Dataset``, or a ``Split`` of ``pyrovae.data``.
            A mapping, ``{"x": x, "mask": mask}`` say, has beside ``x`` tensors with the same first axis, with which the
            programs are called by name: ``model(x, mask=mask)``. A ``Dataset`` may have such mappings for items.
        validation: the same for held-out data; binarised once where ``data`` are binarised dynamically.
        objective: the bound that is maximised; ``ELBO()`` if not given.
        epochs: passes over the data, at the most.
        batch_size: data in a batch; of all processes together, where a ``torch.distributed`` group trains.
        optimizer: makes the optimiser from the parameters.
        scheduler: makes the learning-rate schedule, stepped once an epoch, from the optimiser.
        clip_norm: the largest norm of a step's gradient, all parameters together; a longer one is scaled down to it.
        accumulate: batches whose gradients make one step, as if of a batch that many times as large.
        ema: the decay of an exponential moving average of the weights, 0.999 say; it is what is validated, kept and left in
            the pair.
        nonfinite: what becomes of a step whose loss or gradient is not finite: ``stop`` ends the training; ``skip`` leaves
            the step out; ``rewind`` begins the epoch again with half the learning rate, ten times at the most. ``skipped``
            and ``rewinds`` in the metrics count them. With ``rewind``, one goes on from the ends of epochs only.
        patience: stop when the validation bound has not improved for this many epochs.
        compile: record the programs and fuse the step (:mod:`pyrovae.training.steps`), which takes seconds before the
            first step and leaves a run as it would have been but for rounding; if null, where the run has 3,000 steps
            or more to win them back. Programs that cannot be recorded, or whose Python numbers change, run eagerly, after
            a warning.
        precision: in what networks compute (:func:`pyrovae.runtime.precision.computing_in`); densities are float32 or more.
        seed: fixes the order of the data, their binarisation and the latent draws; torch's generators are left as found.
        device: where to train; where the data are if not given. Data in memory go there as a whole where they fit, and
            else batch by batch, ahead of their use.
        workers: processes that read ahead, for data that are not held in memory.
        run: a folder to keep metrics and checkpoints in. SIGTERM or Ctrl-C then end the step, and a checkpoint is kept.
        resume: go on from the last checkpoint in that folder, as if nothing had happened, or begin where there is none; all
            else must be as it was, but for ``epochs``, ``patience`` and where it is trained. What a ``Dataset`` draws by
            itself goes on within an epoch only without ``workers``, and on a CPU.
        keep_every: of so many epochs one checkpoint is kept for ever, beside the best and the last one.
        keep_minutes: a checkpoint is kept within an epoch too, after so many minutes.
        progress: show a progress bar, in runs that take longer than two seconds.

    Networks train in training mode, but for parts that somebody has put into evaluation mode by ``eval()`` while others are
    not, to freeze a batch normalisation say: these stay in it, and an ``EvaluationModeWarning`` names them once.

    Returns:
        The metrics of each epoch.

    Raises:
        InputError: for data or programs that cannot be used, before anything is written or changed; for a loss or a
            gradient that is not finite, naming the site, with the parameters as they were before that step; for a folder
            that cannot be written, or in which another process is training.
        Interrupted: a KeyboardInterrupt, where the process was told to stop, after a checkpoint.

    Example:
        >>> import pyrovae, torch
        >>> vae = pyrovae.VAE((4,), latent_dim=2)
        >>> x = torch.bernoulli(torch.full((100, 4), 0.5))
        >>> history = pyrovae.fit(vae, x, epochs=2, progress=False)
        >>> len(history.metrics)
        2
    """
    model, guide = programs(pair)
    validated, counts = validation is not None, {"epochs": epochs, "batch_size": batch_size, "keep_every": keep_every}
    require_settings(validated=validated, patience=patience, nonfinite=nonfinite, device=device, **counts)
    module = as_objective(objective)(model, guide)
    splits = [as_split(data), *([with_fixed_draw(as_split(validation), seed)] if validated else [])]
    require_amortized(guide, batch_size, len(splits[0]), validated)
    run = as_run(run, resume)
    place = home(splits[0].columns, device)
    with seeded(seed_of_all(seed, 0), place), modes_kept(module) as modes, computing_in(precision):
        splits = dry_run(module, splits, batch_size, device=device, place=place, workers=workers)
        modes.keep(module.modules())  # networks of functions have joined
        warn_of_evaluation_mode(module)
        made, schedule = make_optimizer(module, optimizer, scheduler, epochs)
        check_last_batch(module, splits[0], batch_size, place)
        fuse = epochs * (len(splits[0]) // batch_size) >= WORTHWHILE if compile is None else compile
        options = {"clip_norm": clip_norm, "accumulate": accumulate, "ema": ema, "compile": fuse}
        failing, draw = "skip" if nonfinite == "skip" else "stop", splits[0].binarize.draw
        steps = Steps(module, made, batch_size=batch_size, draw=draw, nonfinite=failing, **options)
        options = {"seed": seed, "device": place, "workers": workers, "rewinds": nonfinite == "rewind"}
        also = {"clip_norm": clip_norm, "nonfinite": nonfinite, "precision": precision}
        trainer = Trainer(steps, schedule, *splits, also=also, **options)
        if run is None:
            return train_epochs(trainer, epochs=epochs, patience=patience, progress=progress)
        with Signals() as signals, opened(run, steps.processes) as former:
            checkpointer = Checkpointer(run, trainer, every=keep_every, minutes=keep_minutes, signals=signals)
            return train_epochs(trainer, former, checkpointer, epochs=epochs, patience=patience, progress=progress)
