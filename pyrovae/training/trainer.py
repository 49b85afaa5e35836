"""A training, epoch after epoch, and all that is needed to go on with it as if nothing had happened."""

import inspect
import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pyrovae.data.split import Split
from pyrovae.errors import InputError
from pyrovae.objectives import Objective
from pyrovae.objectives.compiled import compile as compile_objective
from pyrovae.runs.checkpoint import Place, load_into
from pyrovae.runs.run import Former
from pyrovae.runtime.batches import Batch, as_batch, batches, prefetched
from pyrovae.runtime.copies import Copies
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.seeds import GeneratorState, set_seed
from pyrovae.training.blame import NonFiniteError, blame
from pyrovae.training.means import Means
from pyrovae.training.steps import Steps

REWINDS, SHRINK = 10, 0.5
"""How often an epoch is begun again at the most, and the factor of the learning rate each time."""


class _Kept(NamedTuple):
    """Where a training was."""

    place: Place
    weights: dict[str, Tensor]
    state: dict[str, Any]


class Trainer:
    """Steps over the data, epoch after epoch; each epoch's randomness is a function of the seed and its number.

    Attributes:
        finished: the number of epochs that are over.
        rewinds: whether an epoch in which a step was not finite is begun again; then one goes on from its beginning only.
    """

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
        rewinds: bool = False,
        also: dict[str, Any] | None = None,
    ) -> None:
        self.steps = steps
        self.schedule = schedule
        self.train = train
        self.held_out = held_out
        self.seed = seed
        self.device = device
        self.workers = workers
        self.finished = 0
        self.rewinds = rewinds
        self._also = also or {}
        self._going_on: dict[str, Any] | None = None
        self._fused = compile_objective(steps.module)

    def epoch(self) -> dict[str, float]:
        """What is left of one pass over the training data, and one over the held-out data; the means of both.

        Raises:
            NonFiniteError: where steps are not finite, with smaller ones neither, if these are tried.
        """
        if not self.rewinds:
            return self._epoch()
        kept = _Kept(self.place, copy_of(self.steps.module.state_dict()), deepcopy(self.state()))
        for times in count():
            try:
                return {**self._epoch(), "rewinds": times}
            except NonFiniteError:
                if times == REWINDS:
                    raise
                self._go_back(kept)
                _shrink(self.steps.optimizer, self.schedule, SHRINK ** (times + 1))
        raise AssertionError

    def _epoch(self) -> dict[str, float]:
        began = perf_counter()
        rate = float(self.steps.optimizer.param_groups[0]["lr"])
        self._set_random_numbers()
        metrics: dict[str, float] = self._train(self.finished + 1).read("train")
        if self.rewinds:
            self._require_finite()
        if self.held_out is not None:
            with self.steps.averaged():
                metrics |= self._validate(self.held_out)
        if self.steps.skips:
            metrics["skipped"] = self.steps.skipped
        if isinstance(self.schedule, ReduceLROnPlateau):
            gain = self.steps.module.elbo.sign * metrics.get("validation_bound", metrics["train_bound"])
            self.schedule.step(-gain)
        elif self.schedule is not None:
            self.schedule.step()
        self.finished += 1
        self.steps.done = 0
        return {**metrics, "learning_rate": rate, "seconds": perf_counter() - began}

    @property
    def place(self) -> Place:
        """Where in the training we are."""
        return Place(self.finished, self.steps.done)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the parameters, or of their averages where these are kept, and of the buffers of the pair."""
        with self.steps.averaged():
            return copy_of(self.steps.module.state_dict())

    def state(self) -> dict[str, Any]:
        """All that is needed beside the weights to go on. All processes must ask for it."""
        module, averaged = self.steps.module, self.steps.averages
        return {
            "settings": self._settings(),
            "steps": self.steps.state(),
            "optimizer": self.steps.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict() if self.schedule else None,
            "buffers": {name: value.cpu() for name, value in self._unnamed_buffers().items()},
            "random": self.steps.processes.gather(random_states(self.device)),
            "parameters": {name: value.detach().cpu() for name, value in module.named_parameters()} if averaged else None,
        }

    def restore(self, former: Former) -> None:
        """Go on from there.

        Raises:
            InputError: where it was another training.
        """
        self._require_the_same(former.training["settings"])
        load_into(self.steps.module, former.weights, Path("the last checkpoint"))
        self._go_back(_Kept(former.place, {}, former.training))

    def _go_back(self, kept: "_Kept") -> None:
        state = kept.state
        raw = {**kept.weights, **(state["parameters"] or {}), **state["buffers"]}
        with torch.no_grad():
            for name, value in (*self.steps.module.named_parameters(), *self.steps.module.named_buffers()):
                if name in raw:
                    value.copy_(raw[name])
        _restore_optimizer(self.steps.optimizer, deepcopy(state["optimizer"]), going_on=sum(kept.place) > 0)
        if self.schedule is not None:
            self.schedule.load_state_dict(state["scheduler"])
        self.finished = kept.place.epoch
        everyones = state["random"]
        same_number = len(everyones) == self.steps.processes.number
        self._going_on = everyones[self.steps.processes.rank] if same_number else None
        if kept.place.batches:
            self.steps.restore(state["steps"])
        else:
            self.steps.restore_averages(state["steps"])

    def _settings(self) -> dict[str, Any]:
        """What must be the same to go on."""
        return {
            "the number of training data": len(self.train),
            "the number of validation data": len(self.held_out) if self.held_out else 0,
            "batch_size": self.steps.batch_size,
            "accumulate": self.steps.accumulate,
            "ema": self.steps.averages.decay if self.steps.averages else None,
            "seed": self.seed,
            "the objective": _described(self.steps.module.elbo),
            "the optimiser": type(self.steps.optimizer).__name__,
            "the schedule": type(self.schedule).__name__,
            **self._also,
        }

    def _require_the_same(self, former: dict[str, Any]) -> None:
        for name, value in self._settings().items():
            if value != former.get(name):
                raise InputError(
                    f"{name} is {value!r}, and was {former.get(name)!r} in the run that is to be resumed; go on as it "
                    "began, or train anew in another folder"
                )

    def _unnamed_buffers(self) -> dict[str, Tensor]:
        """Buffers that are not among the weights, such as an objective's count of steps."""
        named = self.steps.module.state_dict()
        return {name: value for name, value in self.steps.module.named_buffers() if name not in named}

    def _set_random_numbers(self) -> None:
        """As they are at the beginning of this epoch, or at the step where we go on; of each process its own."""
        rank, within = self.steps.processes.rank, self.steps.next_batch
        if self._going_on is not None:
            restore_random_states(self._going_on, self.device)
        if self._going_on is None or not within:  # torch's generators are those of an epoch, NumPy's and Python's go on
            numbers = [self.seed, self.finished + 1, *([1 + rank] if rank else []), *([within] if within else [])]
            set_seed(seed_of_all(*numbers), self.device)
        self._going_on = None

    def _train(self, epoch: int) -> Means:
        generator = torch.Generator().manual_seed(seed_of_all(self.seed, epoch, 1))
        order = torch.randperm(len(self.train), generator=generator) if self.steps.batch_size < len(self.train) else None
        if isinstance(self.train.x, Tensor) and self.train.x.device == self.device:
            return self.steps.walk(as_batch(self.train.columns), order)
        order = torch.arange(len(self.train)) if order is None else order
        left = order.split(self.steps.batch_size)[self.steps.next_batch :]
        own = [index[self.steps.share(len(index))] for index in left]
        size = len(range(self.steps.batch_size)[self.steps.share(self.steps.batch_size)])
        return self.steps.stream(self._read(self.train, torch.cat([order[:0], *own]), size), len(self.train))

    def _read(self, split: Split, order: Tensor | None, batch_size: int) -> Iterator[Batch]:
        """Batches of the data as they are kept."""
        stream = batches(split.columns, batch_size, order=order, workers=self.workers)
        here = isinstance(split.x, Tensor) and split.x.device == self.device
        return stream if here else prefetched(stream, self.device)

    def _read_held_out(self, split: Split) -> Iterator[Batch]:
        """This process' share of the held-out data, in batches."""
        own = None if self.steps.processes.number == 1 else torch.arange(len(split))[self.steps.share(len(split))]
        return self._read(split, own, self.steps.batch_size)

    @torch.no_grad()
    def _validate(self, held_out: Split) -> dict[str, float]:
        """The means over held-out data, with the same noise in every epoch."""
        module, means = self.steps.module, Means(self.steps.module.elbo, self.device)
        set_seed(seed_of_all(self.seed, 0), self.device)
        with evaluating(module):
            for batch in self._read_held_out(held_out):
                recorded = self.steps.compile and len(batch) == self.steps.batch_size
                means.add((self._fused if recorded else module).measure(batch.x, **batch.given))
            self.steps.processes.sum(means.sums)
            means.count = len(held_out)
            if not means.sums[0].isfinite():
                self._find_the_fault(held_out)
        return means.read("validation")

    @torch.no_grad()
    def _require_finite(self) -> None:
        """Raise a NonFiniteError where the last step of an epoch was too large, which the next epoch could not mend."""
        batch = next(self._read(self.train, torch.arange(min(len(self.train), self.steps.batch_size)), len(self.train)))
        batch = batch.with_tensors(self.train.binarize.draw(batch.x), *batch.given.values())
        kept = Copies(self.steps.module.buffers())
        finite = bool(self.steps.module.measure(batch.x, **batch.given).loss.isfinite())
        kept.restore()
        if self.steps.processes.any(not finite):
            raise NonFiniteError(blame(self.steps.module, batch))

    def _find_the_fault(self, held_out: Split) -> None:
        """Go through held-out data again, with the noise of before, to say which batch has no finite bound, and why."""
        set_seed(seed_of_all(self.seed, 0), self.device)
        for batch in self._read_held_out(held_out):
            noise = GeneratorState(self.device)
            if not self.steps.module.measure(batch.x, **batch.given).loss.isfinite():
                noise.restore()
                raise NonFiniteError(blame(self.steps.module, batch))
        raise NonFiniteError(
            "the validation bound is not finite, and was when it was computed again; train with compile=False"
        )


def _described(objective: Objective) -> str:
    """Its class, and what it was made with, as far as that is numbers and words."""
    made_with = {name: getattr(objective, name, None) for name in inspect.signature(type(objective)).parameters}
    plain = [f"{name}={value}" for name, value in made_with.items() if isinstance(value, int | float | str)]
    return f"{type(objective).__name__}({', '.join(plain)})"


def random_states(device: torch.device) -> dict[str, Any]:
    """Where every random generator is: torch's on the CPU and on this device, NumPy's and Python's."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 (a data set of the user's may draw from it)
    state = {"cpu": torch.get_rng_state(), "numpy": _plain(numpy), "python": random.getstate()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put them back; on a CUDA device that was none before, its generator stays as it is."""
    torch.set_rng_state(states["cpu"])
    np.random.set_state(_arrays(states["numpy"]))  # noqa: NPY002
    random.setstate(states["python"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _plain(state: Any) -> Any:
    """NumPy's state with tensors for arrays, which load without unpickling."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return torch.from_numpy(state.astype(np.int64)) if isinstance(state, np.ndarray) else state


def _arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _arrays(value) for name, value in state.items()}
    return state.numpy().astype(np.uint32) if isinstance(state, Tensor) else state


def _restore_optimizer(optimizer: Optimizer, state: dict[str, Any], *, going_on: bool) -> None:
    """The state, but for the kernels: those are for the device where we are now."""
    names = ("fused", "foreach", "capturable")
    kernels = [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise InputError(f"the optimiser is not that of the run to be resumed ({error}); go on as it began") from error
    for group, own in zip(optimizer.param_groups, kernels, strict=True):
        group.update(own)
    if going_on:  # a schedule that comes next would say that no step has been made
        optimizer._opt_called = True  # pyright: ignore[reportAttributeAccessIssue]


def _shrink(optimizer: Optimizer, schedule: Any, factor: float) -> None:
    """Make all steps from here on smaller."""
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):
            if name in group:
                group[name] = group[name] * factor
    for each in (schedule, *getattr(schedule, "_schedulers", ())):
        for name in ("base_lrs", "max_lrs"):
            if hasattr(each, name):
                setattr(each, name, [rate * factor for rate in getattr(each, name)])


def copy_of(weights: dict[str, Any]) -> dict[str, Any]:
    """A copy of each; a module may have an extra state, which is no tensor, among its weights."""
    return {name: _copy(value) for name, value in weights.items()}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)


def seed_of_all(*numbers: int) -> int:
    """A seed of its own for each sequence of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
