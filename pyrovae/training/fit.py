"""The training loop."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

from pyrovae.batches import Batch, as_batch, as_data, batches, prefetched
from pyrovae.data.binarize import Binarize
from pyrovae.data.split import Split
from pyrovae.errors import InputError, require_positive
from pyrovae.evaluation.device import home
from pyrovae.evaluation.mode import evaluating
from pyrovae.evaluation.noise import seeded, set_seed
from pyrovae.objectives import ELBO, Objective, ObjectiveModule
from pyrovae.parameters import Program, owner
from pyrovae.precision import Precision, computing_in
from pyrovae.training.checkpoint import save_checkpoint
from pyrovae.training.checks import Noise, UnmovedParameterWarning, blame
from pyrovae.training.compiled import compile as compile_objective
from pyrovae.training.metrics import Means
from pyrovae.training.run import Run
from pyrovae.training.steps import Steps

WORTHWHILE = 3000
"""The number of steps from which on recording and fusing them is expected to save time."""


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

    def last_is_best(self) -> bool:
        """Whether the last epoch has the best validation bound so far; without validation the last is the best."""
        if "validation_bound" not in self.metrics[-1]:
            return True
        gains = [self.module.elbo.sign * epoch["validation_bound"] for epoch in self.metrics]
        return gains[-1] > max(gains[:-1], default=-math.inf)


def fit(
    model: Program,
    guide: Program,
    data: Any,
    validation: Any = None,
    *,
    objective: Objective | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = partial(torch.optim.Adam, lr=1e-3),
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    clip_norm: float | None = None,
    patience: int | None = None,
    compile: bool | None = None,
    precision: Precision = "highest",
    seed: int = 0,
    device: str | None = None,
    workers: int = 0,
    run: Run | str | None = None,
    progress: bool = True,
) -> History:
    r"""Train a pair of Pyro programs on data, in place.

    Minimises the mean over the batch of minus the objective's bound with a torch optimiser, one pass over the data an
    epoch. Where there are validation data, the pair ends with the parameters of the epoch whose validation bound was best.

    Args:
        model: a Pyro program, module or function, called with one batch ``x`` of shape ``(B, *event_shape)``.
        guide: a Pyro program with the same latent sites.
        data: a tensor or array ``(N, *event_shape)``, a ``torch.utils.data.Dataset``, or a ``Split`` of ``pyrovae.data``.
            A mapping, ``{"x": x, "mask": mask}`` say, has beside ``x`` tensors with the same first axis, with which the
            programs are called by name: ``model(x, mask=mask)``. A ``Dataset`` may have such mappings for items.
        validation: the same for held-out data; binarised once where ``data`` are binarised dynamically.
        objective: the bound that is maximised; ``ELBO()`` if not given.
        epochs: passes over the data, at the most.
        batch_size: data in a step.
        optimizer: makes the optimiser from the parameters.
        scheduler: makes the learning-rate schedule, stepped once an epoch, from the optimiser.
        clip_norm: the largest norm of a step's gradient, all parameters together; a longer one is scaled down to it.
        patience: stop when the validation bound has not improved for this many epochs.
        compile: record the programs and fuse the step (:mod:`pyrovae.training.steps`), which takes seconds before the
            first step and leaves a run as it would have been but for rounding; if null, where the run has 3,000 steps
            or more to win them back. Programs that cannot be recorded, or whose Python numbers change, run eagerly, after
            a warning.
        precision: in what the networks compute (:func:`pyrovae.precision.computing_in`); densities are float32 or more.
        seed: fixes the order of the data, their binarisation and the latent draws; torch's generators are left as found.
        device: where to train; where the data are if not given. Data in memory go there as a whole where they fit, and
            else batch by batch, ahead of their use.
        workers: processes that read ahead, for data that are not held in memory.
        run: a folder to keep metrics and checkpoints in.
        progress: show a progress bar.

    Returns:
        The metrics of each epoch.

    Raises:
        InputError: for data or programs that cannot be used, before anything is written or changed; for a loss or a
            gradient that is not finite, naming the site, with the parameters as they were before that step.

    Example:
        >>> import pyrovae, torch
        >>> vae = pyrovae.VAE((4,), latent_dim=2)
        >>> x = torch.bernoulli(torch.full((100, 4), 0.5))
        >>> history = pyrovae.fit(vae.model, vae.guide, x, epochs=2, progress=False)
        >>> len(history.metrics)
        2
    """
    require_positive(epochs=epochs, batch_size=batch_size, patience=patience)
    if patience is not None and validation is None:
        raise InputError("patience waits for the validation bound; pass validation data too")
    if not isinstance(objective := objective or ELBO(), Objective):
        raise InputError(f"objective is {objective!r}; expected one made, such as pyrovae.IWAE(5)")
    check_device(device)
    train, held_out = _split(data), None if validation is None else _fixed(_split(validation), seed)
    _check_guide(guide, batch_size, len(train))
    run = Run(run) if isinstance(run, str) else run
    module = objective(model, guide)
    place = home(train.columns, device)
    with seeded(_seed(seed, 0), place), evaluating(model, guide), computing_in(precision):
        _start(module, train, batch_size)
        module.to(device)
        parts = [_moved(part, place) for part in (train, held_out) if part is not None]
        _check(module, parts, batch_size, place, workers)
        made, schedule = _optimizer(module, optimizer, scheduler)
        fuse = epochs * (len(train) // batch_size) >= WORTHWHILE if compile is None else compile
        steps = Steps(module, made, batch_size=batch_size, draw=train.binarize.draw, clip_norm=clip_norm, compile=fuse)
        trainer = _Trainer(steps, schedule, *parts, seed=seed, device=place, workers=workers)
        if run is not None:
            run.begin()
        return _loop(trainer, epochs=epochs, patience=patience, run=run, progress=progress)


def _loop(trainer: "_Trainer", *, epochs: int, patience: int | None, run: Run | None, progress: bool) -> History:
    """Epochs until they are over or patience is, and the best parameters back into the pair."""
    module = trainer.steps.module
    history, best = History(module), {}
    with tqdm(total=epochs, unit="epoch", disable=not progress) as bar:
        bar.set_postfix_str("recording and fusing the step" if trainer.steps.compile else "")
        for epoch in range(1, epochs + 1):
            history.metrics.append({"epoch": epoch, **trainer.epoch(epoch)})
            history.seconds_to_first_step = trainer.steps.seconds_to_first_step or math.nan
            if history.last_is_best():
                history.best_epoch, best = epoch, _copy(module) if trainer.held_out else {}
            if run is not None:
                _keep(run, trainer, history)
            bar.set_postfix_str(_postfix(history.metrics[-1]), refresh=False)
            bar.update()
            if patience is not None and epoch - history.best_epoch >= patience:
                break
    trainer.steps.close()
    if best:
        module.load_state_dict(best)
    return history


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
    if not isinstance(made, Optimizer) or isinstance(made, torch.optim.LBFGS):
        raise InputError(
            f"optimizer makes a {type(made).__name__}; expected a torch optimiser that needs no closure, "
            "such as partial(torch.optim.Adam, lr=1e-3); those of pyro.optim go with SVI"
        )
    return made, schedule


class _Trainer:
    """Steps over the data, epoch after epoch; each epoch's randomness is a function of the seed and its number."""

    def __init__(
        self,
        steps: Steps,
        schedule: LRScheduler | None,
        train: Split,
        held_out: Split | None = None,
        *,
        seed: int,
        device: torch.device,
        workers: int,
    ) -> None:
        self.steps = steps
        self.schedule = schedule
        self.train = train
        self.held_out = held_out
        self.seed = seed
        self.device = device
        self.workers = workers
        self._fused = compile_objective(steps.module)

    def epoch(self, number: int) -> dict[str, float]:
        """One pass over the training data and one over the held-out data; the means of both."""
        began = perf_counter()
        rate = float(self.steps.optimizer.param_groups[0]["lr"])
        set_seed(_seed(self.seed, number), self.device)
        metrics = self._train(number).read("train")
        if self.held_out is not None:
            metrics |= self._validate(self.held_out)
        if isinstance(self.schedule, ReduceLROnPlateau):
            gain = self.steps.module.elbo.sign * metrics.get("validation_bound", metrics["train_bound"])
            self.schedule.step(-gain)
        elif self.schedule is not None:
            self.schedule.step()
        return {**metrics, "learning_rate": rate, "seconds": perf_counter() - began}

    def _train(self, epoch: int) -> Means:
        generator = torch.Generator().manual_seed(_seed(self.seed, epoch, 1))
        order = torch.randperm(len(self.train), generator=generator) if self.steps.batch_size < len(self.train) else None
        if isinstance(self.train.x, Tensor) and self.train.x.device == self.device:
            return self.steps.walk(as_batch(self.train.columns), order)
        return self.steps.stream(self._read(self.train, order))

    def _read(self, split: Split, order: Tensor | None = None) -> Iterator[Batch]:
        """Batches of the data as they are kept."""
        stream = batches(split.columns, self.steps.batch_size, order=order, workers=self.workers)
        here = isinstance(split.x, Tensor) and split.x.device == self.device
        return stream if here else prefetched(stream, self.device)

    @torch.no_grad()
    def _validate(self, held_out: Split) -> dict[str, float]:
        """The means over held-out data, with the same noise in every epoch."""
        module, means = self.steps.module.eval(), Means(self.steps.module.elbo, self.device)
        set_seed(_seed(self.seed, 0), self.device)
        for batch in self._read(held_out):
            recorded = self.steps.compile and len(batch) == self.steps.batch_size
            means.add((self._fused if recorded else module).measure(batch.x, **batch.given))
        if not means.sums[0].isfinite():
            self._find_the_fault(held_out)
        return means.read("validation")

    def _find_the_fault(self, held_out: Split) -> None:
        """Go through held-out data again, with the noise of before, to say which batch has no finite bound, and why."""
        set_seed(_seed(self.seed, 0), self.device)
        for batch in self._read(held_out):
            noise = Noise(self.device)
            if not self.steps.module.measure(batch.x, **batch.given).loss.isfinite():
                noise.restore()
                raise InputError(blame(self.steps.module, batch))
        raise InputError("the validation bound is not finite, and was when it was computed again; train with compile=False")

    def state(self) -> dict[str, Any]:
        """What is needed beside the weights to go on."""
        schedule = self.schedule.state_dict() if self.schedule else None
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            random["cuda"] = torch.cuda.get_rng_state()
        state = self.steps.module.elbo.state
        objective = {name: value.cpu() for name, value in state.named_buffers()} if state else None
        optimizer = self.steps.optimizer.state_dict()
        return {"optimizer": optimizer, "scheduler": schedule, "objective": objective, "random": random}


def _keep(run: Run, trainer: _Trainer, history: History) -> None:
    epoch = history.metrics[-1]
    run.log(epoch)
    state = {"epoch": epoch["epoch"], **trainer.state()}
    save_checkpoint(
        run.checkpoints, len(history.metrics), trainer.steps.module.state_dict(), state, best=history.last_is_best()
    )


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
    module.start(first.x, **first.given)
    if module.unknown:
        warnings.warn(
            f"the programs call networks that Pyro does not know, and which are not trained: {', '.join(module.unknown)}; "
            "name them by pyro.module, make them parts of a module, or set requires_grad=False where it is meant",
            UnmovedParameterWarning,
            stacklevel=3,
        )


def _check(module: ObjectiveModule, splits: list[Split], batch_size: int, device: torch.device, workers: int) -> None:
    """Show the programs, with validation on, every datum held in memory, or the first batch of those that are not."""
    for split in splits:
        every = len(split) if isinstance(split.x, Tensor) else 1
        for x in islice(split.batches(batch_size, shuffle=False, device=device, workers=workers), every):
            batch = as_batch(x)
            module.check(batch.x, **batch.given)


def _check_guide(guide: Program, batch_size: int, number: int) -> None:
    if isinstance(owner(guide), AutoGuide) and batch_size < number:
        raise InputError(
            f"{type(owner(guide)).__name__} keeps parameters for each datum by its place in the batch; pass "
            f"batch_size={number}, all data at once, or an amortised guide"
        )


def check_device(device: str | None) -> None:
    """Raise an InputError where torch has no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch built without CUDA asserts that there is none
        reason = str(error).partition("\n")[0]
        raise InputError(f"device is {device!r}, which is not to be had here ({reason}); take 'cpu'") from error


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _postfix(metrics: dict[str, float]) -> str:
    shown = "validation" if "validation_bound" in metrics else "train"
    return ", ".join(f"{name} {metrics[f'{shown}_{name}']:.2f}" for name in ("bound", "reconstruction", "kl"))
