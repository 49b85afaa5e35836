"""The training loop."""

import math
import warnings
from collections.abc import Callable, Iterable
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

from pyrovae.batches import as_data, size
from pyrovae.data.binarize import Binarize
from pyrovae.data.split import Split
from pyrovae.errors import InputError
from pyrovae.evaluation.device import home
from pyrovae.evaluation.mode import evaluating
from pyrovae.evaluation.noise import seeded, set_seed
from pyrovae.objectives import ELBO, Measurement, Objective, ObjectiveModule
from pyrovae.parameters import Program, owner
from pyrovae.training.checkpoint import save_checkpoint
from pyrovae.training.checks import MovedParameters, Noise, UnmovedParameterWarning, require_finite
from pyrovae.training.metrics import Means
from pyrovae.training.run import Run

Loader = Callable[..., Iterable[Tensor]]


@dataclass(repr=False)
class History:
    """What a training run did.

    Attributes:
        metrics: one dict an epoch: ``epoch``, the means over data ``train_bound``, ``train_reconstruction``, ``train_kl``
            and the same of ``validation``, all in nats a datum, ``learning_rate`` and ``seconds``.
        best_epoch: the epoch whose parameters the pair now has.
        module: the objective on the pair.
    """

    module: ObjectiveModule
    metrics: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0

    def __repr__(self) -> str:
        last = (
            ", ".join(f"{name} {value:.4g}" for name, value in self.metrics[-1].items()) if self.metrics else "nothing yet"
        )
        return f"History({len(self.metrics)} epochs, the best {self.best_epoch}; the last: {last})"

    def last_is_best(self) -> bool:
        """Whether the last epoch has the best validation bound so far; without validation the last is the best."""
        bounds = [epoch.get("validation_bound", epoch["epoch"]) for epoch in self.metrics]
        return bounds[-1] > max(bounds[:-1], default=-math.inf)


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
    patience: int | None = None,
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
        validation: the same for held-out data; binarised once where ``data`` are binarised dynamically.
        objective: the bound that is maximised; ``ELBO()`` if not given.
        epochs: passes over the data, at the most.
        batch_size: data in a step.
        optimizer: makes the optimiser from the parameters.
        scheduler: makes the learning-rate schedule, stepped once an epoch, from the optimiser.
        patience: stop when the validation bound has not improved for this many epochs.
        seed: fixes the order of the data, their binarisation and the latent draws; torch's generators are left as found.
        device: where to train; where the data are if not given.
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
    _check_numbers(epochs=epochs, batch_size=batch_size, patience=patience)
    if patience is not None and validation is None:
        raise InputError("patience waits for the validation bound; pass validation data too")
    if not isinstance(objective := objective or ELBO(), Objective):
        raise InputError(f"objective is {objective!r}; expected one made, such as pyrovae.IWAE(5)")
    check_device(device)
    train, held_out = _split(data), None if validation is None else _fixed(_split(validation), seed)
    _check_guide(guide, batch_size, len(train))
    run = Run(run) if isinstance(run, str) else run
    module = objective(model, guide)
    place = home(train.x, device)
    with seeded(_seed(seed, 0), place), evaluating(model, guide):
        _start(module, train, batch_size)
        module.to(device)
        loader = partial(Split.batches, batch_size=batch_size, device=device, workers=workers)
        parts = [_moved(part, device) for part in (train, held_out) if part is not None]
        _check(module, parts, loader)
        trainer = _Trainer(module, optimizer, scheduler, seed, place)
        if run is not None:
            run.begin()
        loaders = (partial(loader, part) for part in parts)
        return _loop(trainer, *loaders, epochs=epochs, patience=patience, run=run, progress=progress)


def _loop(
    trainer: "_Trainer",
    train: Loader,
    held_out: Loader | None = None,
    *,
    epochs: int,
    patience: int | None,
    run: Run | None,
    progress: bool,
) -> History:
    """Epochs until they are over or patience is, and the best parameters back into the pair."""
    history, best = History(trainer.module), {}
    with tqdm(total=epochs, unit="epoch", disable=not progress) as bar:
        for epoch in range(1, epochs + 1):
            history.metrics.append({"epoch": epoch, **trainer.epoch(epoch, train, held_out)})
            if history.last_is_best():
                history.best_epoch, best = epoch, _copy(trainer.module) if held_out else {}
            if run is not None:
                _keep(run, trainer, history)
            bar.set_postfix_str(_postfix(history.metrics[-1]), refresh=False)
            bar.update()
            if patience is not None and epoch - history.best_epoch >= patience:
                break
    if best:
        trainer.module.load_state_dict(best)
    return history


class _Trainer:
    """A module with its optimiser and schedule; each epoch's randomness is a function of the seed and its number."""

    def __init__(
        self,
        module: ObjectiveModule,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None,
        seed: int,
        device: torch.device,
    ) -> None:
        self.module = module
        parameters = [value for value in module.parameters() if value.requires_grad]
        if not parameters:
            raise InputError("the programs have no parameter to train; name networks to Pyro by pyro.module, or use modules")
        try:
            self.optimizer = optimizer(parameters)
            self.schedule = scheduler(self.optimizer) if scheduler else None
        except (TypeError, ValueError) as error:
            raise InputError(f"the optimiser or its schedule cannot be made: {error}; correct its arguments") from error
        if not isinstance(self.optimizer, Optimizer) or isinstance(self.optimizer, torch.optim.LBFGS):
            raise InputError(
                f"optimizer makes a {type(self.optimizer).__name__}; expected a torch optimiser that needs no closure, "
                "such as partial(torch.optim.Adam, lr=1e-3); those of pyro.optim go with SVI"
            )
        self.seed = seed
        self.device = device

    def epoch(self, number: int, train: Loader, held_out: Loader | None) -> dict[str, float]:
        """One pass over the training data and one over the held-out data; the means of both."""
        began = perf_counter()
        rate = self.optimizer.param_groups[0]["lr"]
        order = torch.Generator().manual_seed(_seed(self.seed, number, 1))
        set_seed(_seed(self.seed, number), self.device)
        metrics = self._train(train(shuffle=True, generator=order), number)
        if held_out is not None:
            metrics |= self._validate(held_out(shuffle=False))
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(-metrics.get("validation_bound", metrics["train_bound"]))
        elif self.schedule is not None:
            self.schedule.step()
        return {**metrics, "learning_rate": rate, "seconds": perf_counter() - began}

    def _train(self, batches: Iterable[Tensor], epoch: int) -> dict[str, float]:
        self.module.train()
        means = Means()
        for number, x in enumerate(batches):
            watched = MovedParameters(self.module) if epoch == 1 and number == 0 else None
            means.add(self._step(x))
            if watched is not None and any(group["lr"] for group in self.optimizer.param_groups):
                watched.warn(self.module)
        return means.read("train")

    def _step(self, x: Tensor) -> Measurement:
        noise = Noise(x.device)
        self.optimizer.zero_grad()
        measured = self.module.measure(x)
        (measured.loss / (measured.scale * measured.bound.numel())).backward()
        require_finite(self.module, measured.loss, x, noise)
        self.optimizer.step()
        return measured

    @torch.no_grad()
    def _validate(self, batches: Iterable[Tensor]) -> dict[str, float]:
        """The means over held-out data, with the same noise in every epoch."""
        self.module.eval()
        set_seed(_seed(self.seed, 0), self.device)
        means = Means()
        for x in batches:
            noise = Noise(x.device)
            measured = self.module.measure(x)
            require_finite(self.module, measured.loss, x, noise)
            means.add(measured)
        return means.read("validation")

    def state(self) -> dict[str, Any]:
        """What is needed beside the weights to go on."""
        schedule = self.schedule.state_dict() if self.schedule else None
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            random["cuda"] = torch.cuda.get_rng_state()
        return {"optimizer": self.optimizer.state_dict(), "scheduler": schedule, "random": random}


def _keep(run: Run, trainer: _Trainer, history: History) -> None:
    epoch = history.metrics[-1]
    run.log(epoch)
    state = {"epoch": epoch["epoch"], **trainer.state()}
    save_checkpoint(run.checkpoints, len(history.metrics), trainer.module.state_dict(), state, best=history.last_is_best())


def _split(data: Any) -> Split:
    if isinstance(data, Split):
        return data
    x = as_data(data)
    return Split(x, None, np.arange(size(x)), Binarize.parse("none"))


def _moved(split: Split, device: str | None) -> Split:
    return split.to(device) if device is not None and isinstance(split.x, Tensor) else split


def _fixed(split: Split, seed: int) -> Split:
    """The split with one draw of its binarisation, so that epochs are judged on the same data."""
    return Split(split.fixed_draw(seed), split.labels, split.index, Binarize.parse("none"))


def _start(module: ObjectiveModule, train: Split, batch_size: int) -> None:
    """Find the plates and parameters on one batch, where the parameters are now: those of functions join only here."""
    x = next(train.batches(batch_size, shuffle=False, generator=torch.Generator()))
    module.start(x.to(next((value.device for value in module.parameters()), x.device)))
    if module.unknown:
        warnings.warn(
            f"the programs call networks that Pyro does not know, and which are not trained: {', '.join(module.unknown)}; "
            "name them by pyro.module, make them parts of a module, or set requires_grad=False where it is meant",
            UnmovedParameterWarning,
            stacklevel=3,
        )


def _check(module: ObjectiveModule, splits: list[Split], loader: Callable[..., Iterable[Tensor]]) -> None:
    """Show the programs, with validation on, every datum held in memory, or the first batch of those that are not."""
    for split in splits:
        every = len(split) if isinstance(split.x, Tensor) else 1
        for x in islice(loader(split, shuffle=False), every):
            module.check(x)


def _check_guide(guide: Program, batch_size: int, number: int) -> None:
    if isinstance(owner(guide), AutoGuide) and batch_size < number:
        raise InputError(
            f"{type(owner(guide)).__name__} keeps parameters for each datum by its place in the batch; pass "
            f"batch_size={number}, all data at once, or an amortised guide"
        )


def _check_numbers(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}; expected at least 1")


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
