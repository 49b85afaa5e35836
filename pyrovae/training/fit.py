"""The training loop."""

import math
import warnings
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

from pyrovae.data.binarize import Binarize
from pyrovae.data.split import Split
from pyrovae.engine.derivatives import derivatives
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.errors import InputError, require_positive
from pyrovae.objectives import ELBO, Objective, ObjectiveModule
from pyrovae.runs.run import Former, Run
from pyrovae.runtime.batches import as_batch, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating, modes_kept
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import Program, keeps_places, owner, same_random_numbers
from pyrovae.runtime.precision import Precision, computing_in
from pyrovae.runtime.seeds import seeded
from pyrovae.training.checkpointing import Keeping, opened
from pyrovae.training.signals import Signals
from pyrovae.training.steps import Steps
from pyrovae.training.trainer import Trainer, seed_of_all
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

WORTHWHILE = 3000
"""The number of steps from which on recording and fusing them is expected to save time."""
AT_ONCE = 2**19
"""Numbers of data that the programs are shown together before training, at the least: 668 pictures of 28 x 28."""


class EvaluationModeWarning(UserWarning):
    """Parts of the networks are in evaluation mode, and training leaves them there."""


@dataclass(repr=False)
class History:
    """What a training run did.

    Attributes:
        metrics: one dict an epoch: ``epoch``, the means over data ``train_bound``, ``train_reconstruction``, ``train_kl``,
            those of the objective's parts (``train_total_correlation``, say) and the same of ``validation``, all in nats a
            datum, ``learning_rate`` and ``seconds``.
        best_epoch: the epoch whose parameters the pair now has.
        seconds_to_first_step: from the end of the checks to the end of the first step: recording and fusing, mostly.
        module: the objective on the pair.
    """

    module: ObjectiveModule
    metrics: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds_to_first_step: float = math.nan

    def __repr__(self) -> str:
        last = (
            ", ".join(f"{name} {value:.4g}" for name, value in self.metrics[-1].items()) if self.metrics else "nothing yet"
        )
        return f"History({len(self.metrics)} epochs, the best {self.best_epoch}; the last: {last})"

    def best_of_all(self) -> int:
        """The epoch with the best validation bound, the first of equals; without validation the last one."""
        if not self.metrics or "validation_bound" not in self.metrics[-1]:
            return len(self.metrics)
        gains = [self.module.elbo.sign * epoch["validation_bound"] for epoch in self.metrics]
        return 1 + gains.index(max(gains))

    def last_is_best(self) -> bool:
        """Whether the last epoch has the best validation bound so far; without validation the last is the best."""
        return self.best_of_all() == len(self.metrics)


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
    compile: bool | None = None,
    precision: Precision = "highest",
    seed: int = 0,
    device: str | None = None,
    workers: int = 0,
    run: Run | str | Path | None = None,
    resume: bool = False,
    keep_every: int | None = None,
    keep_minutes: float | None = 10.0,
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
        progress: show a progress bar.

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
    require_positive(epochs=epochs, batch_size=batch_size, patience=patience, keep_every=keep_every)
    if nonfinite not in ("stop", "skip", "rewind"):
        raise InputError(f"nonfinite is {nonfinite!r}; expected 'stop', 'skip' or 'rewind'")
    if patience is not None and validation is None:
        raise InputError("patience waits for the validation bound; pass validation data too")
    if not isinstance(objective := objective or ELBO(), Objective):
        raise InputError(f"objective is {objective!r}; expected an instance, such as pyrovae.IWAE(5)")
    check_device(device)
    train, held_out = _split(data), None if validation is None else _fixed(_split(validation), seed)
    _check_guide(guide, batch_size, len(train), validation is not None)
    run = _run(run, resume)
    module = objective(model, guide)
    place = home(train.columns, device)
    with seeded(seed_of_all(seed, 0), place), modes_kept(module) as modes, computing_in(precision):
        with evaluating(model, guide):
            _start(module, train, batch_size)
            if device is not None:
                module.to(device)
            parts = [_moved(part, place) for part in (train, held_out) if part is not None]
            _check(module, parts, batch_size, place, workers)
        modes.keep(module.modules())  # networks of functions have joined
        _say_what_rests(module)
        made, schedule = _optimizer(module, optimizer, scheduler)
        if scheduler is not None:
            _rehearse(made, scheduler, epochs)
        if rest := len(train) % batch_size:
            _try_rest(module, parts[0], rest, place)
        fuse = epochs * (len(train) // batch_size) >= WORTHWHILE if compile is None else compile
        options = {"clip_norm": clip_norm, "accumulate": accumulate, "ema": ema, "compile": fuse}
        also = {"clip_norm": clip_norm, "nonfinite": nonfinite, "precision": precision}
        rewinds, leaves = nonfinite == "rewind", "stop" if nonfinite == "rewind" else nonfinite
        steps = Steps(module, made, batch_size=batch_size, draw=train.binarize.draw, nonfinite=leaves, **options)
        trainer = Trainer(steps, schedule, *parts, seed=seed, device=place, workers=workers, rewinds=rewinds, also=also)
        if run is None:
            return _loop(trainer, epochs=epochs, patience=patience, progress=progress)
        with Signals() as signals, opened(run, steps.processes) as former:
            keeping = Keeping(run, trainer, every=keep_every, minutes=keep_minutes, signals=signals)
            return _loop(trainer, former, keeping, epochs=epochs, patience=patience, progress=progress)


def _loop(
    trainer: Trainer,
    former: Former | None = None,
    keeping: Keeping | None = None,
    *,
    epochs: int,
    patience: int | None,
    progress: bool,
) -> History:
    """Epochs until they are over or patience is, and the best parameters back into the pair."""
    module = trainer.steps.module
    history, best = History(module), {}
    keeps_best = trainer.held_out is not None or trainer.steps.averages is not None
    if former is not None:
        trainer.restore(former)
        history.metrics, best = former.metrics, former.best if keeps_best else {}
        history.best_epoch = history.best_of_all()
    with tqdm(total=epochs, initial=trainer.finished, unit="epoch", disable=not progress) as bar:
        bar.set_postfix_str("recording and fusing the step" if trainer.steps.compile else "")
        while trainer.finished < epochs and (patience is None or trainer.finished - history.best_epoch < patience):
            history.metrics.append({"epoch": trainer.finished + 1, **trainer.epoch()})
            history.seconds_to_first_step = trainer.steps.seconds_to_first_step or math.nan
            if history.last_is_best():
                history.best_epoch, best = trainer.finished, trainer.weights() if keeps_best else {}
            if keeping is not None:
                keeping.epoch(history.metrics[-1], best=history.last_is_best())
            bar.set_postfix_str(_postfix(history.metrics[-1]), refresh=False)
            bar.update()
    trainer.steps.close()
    if best:
        module.load_state_dict(best)
    return history


def _say_what_rests(module: ObjectiveModule) -> None:
    """Warn of networks that stay in evaluation mode."""
    if resting := module.resting():
        names = [name for name in resting if name.rpartition(".")[0] not in resting]
        warnings.warn(
            f"these parts are in evaluation mode and stay in it: {', '.join(names)}; where they are to train, call train() "
            "on them before",
            EvaluationModeWarning,
            stacklevel=4,
        )


def _optimizer(
    module: ObjectiveModule,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None,
) -> tuple[Optimizer, LRScheduler | None]:
    """The optimiser of the trainable parameters and its schedule, or an InputError that says what is wrong with them."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    if not parameters:
        raise InputError("the programs have no parameter to train; name networks to Pyro by pyro.module, or use modules")
    try:
        made = optimizer(parameters)
        schedule = scheduler(made) if scheduler else None
    except (TypeError, ValueError) as error:
        raise InputError(f"the optimiser or its schedule cannot be made: {error}; correct its arguments") from error
    if not isinstance(made, Optimizer) or isinstance(made, torch.optim.LBFGS | torch.optim.SparseAdam):
        raise InputError(
            f"optimizer makes a {type(made).__name__}; expected a torch optimiser of dense gradients that needs no closure, "
            "such as partial(torch.optim.Adam, lr=1e-3); those of pyro.optim go with SVI"
        )
    return made, schedule


def _rehearse(optimizer: Optimizer, scheduler: Callable[[Optimizer], LRScheduler], epochs: int) -> None:
    """Step a schedule like that of the run through all of its epochs; an InputError where it fails on the way."""
    twin = copy(optimizer)
    twin.param_groups = [dict(group) for group in optimizer.param_groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of there being no steps of the optimiser
        schedule = scheduler(twin)
        for epoch in range(1, epochs + 1):
            try:
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(0.0)
                else:
                    schedule.step()
            except Exception as error:
                raise InputError(
                    f"the learning-rate schedule fails after epoch {epoch} of {epochs}: {error}; it is stepped once an "
                    f"epoch, so make it for {epochs} steps"
                ) from error


def _try_rest(module: ObjectiveModule, train: Split, rest: int, device: torch.device) -> None:
    """Train on the few data of an epoch's last batch, without a trace; an InputError where the networks fail on so few."""
    batch = as_batch(next(iter(train.batches(rest, shuffle=False, device=device))))
    parameters = [value for value in module.parameters() if value.requires_grad]
    with same_random_numbers(device), reached(module), modes_kept(module):
        module.train_but(module.resting())
        try:
            loss = module.measure(batch.x, **batch.given).loss
            if loss.requires_grad:
                derivatives(loss, parameters)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"the last batch of an epoch has {rest} of the {len(train)} data, and on so few the programs fail: {error}; "
                "take another batch_size, or leave these data out"
            ) from error


def _run(run: Run | str | Path | None, resume: bool) -> Run | None:
    if isinstance(run, str | Path):
        return Run(run, resume=resume)
    if resume and not (isinstance(run, Run) and run.resumes):
        raise InputError("resume is set, and run is not one to be resumed; pass its folder, or Run(path, resume=True)")
    return run


def _split(data: Any) -> Split:
    if isinstance(data, Split):
        return data
    columns = as_data(data)
    return Split(columns.x, None, np.arange(len(columns)), Binarize.parse("none"), columns.given)


def _moved(split: Split, device: torch.device) -> Split:
    """The split on the device, where its data are in memory and take no more than half of what is free there."""
    if not isinstance(split.x, Tensor) or (
        device.type == "cuda"
        and sum(column.nbytes for column in split.columns.tensors) > torch.cuda.mem_get_info(device)[0] / 2
    ):
        return split
    return split.to(device)


def _fixed(split: Split, seed: int) -> Split:
    """The split with one draw of its binarisation, so that epochs are judged on the same data."""
    return _split(split.fixed_draw(seed))


def _start(module: ObjectiveModule, train: Split, batch_size: int) -> None:
    """Find the plates and parameters on one batch, where the parameters are now: those of functions join only here."""
    first = as_batch(next(train.batches(batch_size, shuffle=False, generator=torch.Generator())))
    first = first.to(next((value.device for value in module.parameters()), None))
    module.meet(first, mixed=True)
    if module.unknown:
        warnings.warn(
            f"the programs call networks that Pyro does not know, and which are not trained: {', '.join(module.unknown)}; "
            "name them by pyro.module, make them parts of a module, or set requires_grad=False where it is meant",
            UnmovedParameterWarning,
            stacklevel=4,
        )


def _check(module: ObjectiveModule, splits: list[Split], batch_size: int, device: torch.device, workers: int) -> None:
    """Show the programs, with validation on, every datum held in memory, or the first batch of those that are not.

    What cannot be shown many at once is shown by batches as in training, which say what is wrong, or that nothing is.
    """
    for split in splits:
        if not _passes(module, split, batch_size, device):
            every = len(split) if isinstance(split.x, Tensor) else 1
            for x in islice(split.batches(batch_size, shuffle=False, device=device, workers=workers), every):
                _show(module, x)


def _passes(module: ObjectiveModule, split: Split, batch_size: int, device: torch.device) -> bool:
    """Whether the programs can be shown many data at once, if these are in memory, and find nothing wrong with them."""
    if not isinstance(split.x, Tensor):
        return False
    many = AT_ONCE // max(1, math.prod(split.x.shape[1:]))
    try:
        for x in split.batches(max(many, batch_size), shuffle=False, device=device):
            _show(module, x)
    except Exception:  # of whatever type; those of a batch are raised
        return False
    return True


def _show(module: ObjectiveModule, x: Any) -> None:
    batch = as_batch(x)
    module.check(batch.x, **batch.given)


def _check_guide(guide: Program, batch_size: int, number: int, validated: bool) -> None:
    if not keeps_places(guide):
        return
    kind = f"{type(owner(guide)).__name__} keeps per-datum parameters by place in the batch"
    if batch_size < number:
        raise InputError(f"{kind}; pass batch_size={number}, all data at once, or an amortized guide")
    if validated:
        raise InputError(f"{kind}, and has none for validation data; leave them out, or pass an amortized guide")


def check_device(device: str | None) -> None:
    """Raise an InputError where torch has no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch built without CUDA asserts that there is none
        reason = str(error).partition("\n")[0]
        raise InputError(f"device is {device!r}, which is not available here ({reason}); take 'cpu'") from error


def _postfix(metrics: dict[str, float]) -> str:
    shown = "validation" if "validation_bound" in metrics else "train"
    return ", ".join(f"{name} {metrics[f'{shown}_{name}']:.2f}" for name in ("bound", "reconstruction", "kl"))
