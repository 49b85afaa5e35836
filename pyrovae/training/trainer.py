"""The epochs of a training, each of which can be begun again, or taken up in another process, as if nothing had happened."""

import inspect
from copy import deepcopy
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from pyrovae.data.split import Split
from pyrovae.errors import InputError
from pyrovae.objectives import Objective
from pyrovae.runs.checkpoint import Place, load_into
from pyrovae.runs.run import Former
from pyrovae.training.batch_reader import Reader
from pyrovae.training.failing_site import NonFiniteError
from pyrovae.training.means import Means
from pyrovae.training.optimizer import restore_optimizer, scale_learning_rates, step_schedule
from pyrovae.training.random_numbers import RandomNumbers
from pyrovae.training.steps import Steps
from pyrovae.training.validation import Validation, require_finite

REWINDS, SHRINK = 10, 0.5
"""How often an epoch is begun again at the most, and the factor of the learning rate each time."""


class _Snapshot(NamedTuple):
    """Where a training was."""

    place: Place
    weights: dict[str, Tensor]
    state: dict[str, Any]


class Trainer:
    """Makes the steps over the data, epoch after epoch.

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
        self.finished = 0
        self.rewinds = rewinds
        self._also = also or {}
        self._random = RandomNumbers(seed, device, steps.processes)
        self._reader = Reader(device, workers, steps.batch_size, steps.processes)
        self._validation = None if held_out is None else Validation(steps, held_out, self._reader, self._random)

    def epoch(self) -> dict[str, float]:
        """Make what is left of one pass over the training data, and one over the held-out data; return the means of both.

        Raises:
            NonFiniteError: where steps are not finite, with smaller ones neither, if these are tried.
        """
        if not self.rewinds:
            return self._epoch()
        before = _Snapshot(self.place, _copied(self.steps.module.state_dict()), deepcopy(self.state()))
        for times in count():
            try:
                return {**self._epoch(), "rewinds": times}
            except NonFiniteError:
                if times == REWINDS:
                    raise
                self._go_back(before)
                scale_learning_rates(self.steps.optimizer, self.schedule, SHRINK ** (times + 1))
        raise AssertionError

    def _epoch(self) -> dict[str, float]:
        began = perf_counter()
        rate = float(self.steps.optimizer.param_groups[0]["lr"])
        self._random.begin(self.finished + 1, self.steps.progress.next_batch)
        metrics = self._train().read("train")
        if self.rewinds:
            require_finite(self.steps, self.train, self._reader)
        if self._validation is not None:
            with self.steps.averaged():
                metrics |= self._validation.means()
        if self.steps.skips:
            metrics["skipped"] = self.steps.progress.skipped
        step_schedule(self.schedule, -self.steps.module.elbo.sign * metrics.get("validation_bound", metrics["train_bound"]))
        self.finished += 1
        self.steps.progress.done = 0
        return {**metrics, "learning_rate": rate, "seconds": perf_counter() - began}

    def _train(self) -> Means:
        number, shuffled = len(self.train), self.steps.batch_size < len(self.train)
        order = self._random.order(self.finished + 1, number) if shuffled else None
        if self._reader.is_here(self.train):
            return self.steps.walk(self.train.columns, order)
        order = torch.arange(number) if order is None else order
        return self.steps.stream(self._reader.train(self.train, order, self.steps.progress.next_batch), number)

    @property
    def place(self) -> Place:
        """The number of epochs that are over, and of batches done in this one."""
        return Place(self.finished, self.steps.progress.done)

    def weights(self) -> dict[str, Tensor]:
        """Copy the parameters, or their averages where these are kept, and the buffers of the pair."""
        with self.steps.averaged():
            return _copied(self.steps.module.state_dict())

    def state(self) -> dict[str, Any]:
        """Return all that is needed beside the weights to go on. All processes must call it."""
        module, averaged = self.steps.module, self.steps.averages
        return {
            "settings": self._settings(),
            "steps": self.steps.state(),
            "optimizer": self.steps.optimizer.state_dict(),
            "scheduler": self.schedule.state_dict() if self.schedule else None,
            "buffers": {name: value.cpu() for name, value in self._unnamed_buffers().items()},
            "random": self._random.state(),
            "parameters": {name: value.detach().cpu() for name, value in module.named_parameters()} if averaged else None,
        }

    def restore(self, former: Former) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: where it was another training.
        """
        _require_same(self._settings(), former.training["settings"])
        load_into(self.steps.module, former.weights, Path("the last checkpoint"))
        self._go_back(_Snapshot(former.place, {}, former.training))

    def _go_back(self, to: _Snapshot) -> None:
        state, progress = to.state, self.steps.progress
        raw = {**to.weights, **(state["parameters"] or {}), **state["buffers"]}
        with torch.no_grad():
            for name, value in (*self.steps.module.named_parameters(), *self.steps.module.named_buffers()):
                if name in raw:
                    value.copy_(raw[name])
        restore_optimizer(self.steps.optimizer, state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["scheduler"])
        self.finished = to.place.epoch
        self._random.restore(state["random"])
        (progress.restore if to.place.batches else progress.restore_averages)(state["steps"])

    def _settings(self) -> dict[str, Any]:
        """What must be the same to go on."""
        return {
            "the number of training data": len(self.train),
            "the number of validation data": len(self.held_out) if self.held_out else 0,
            "batch_size": self.steps.batch_size,
            "accumulate": self.steps.accumulate,
            "ema": self.steps.averages.decay if self.steps.averages else None,
            "seed": self._random.seed,
            "the objective": _described(self.steps.module.elbo),
            "the optimiser": type(self.steps.optimizer).__name__,
            "the schedule": type(self.schedule).__name__,
            **self._also,
        }

    def _unnamed_buffers(self) -> dict[str, Tensor]:
        """Buffers that are not among the weights, such as an objective's count of steps."""
        named = self.steps.module.state_dict()
        return {name: value for name, value in self.steps.module.named_buffers() if name not in named}


def _require_same(settings: dict[str, Any], former: dict[str, Any]) -> None:
    for name, value in settings.items():
        if value != former.get(name):
            raise InputError(
                f"{name} is {value!r}, and was {former.get(name)!r} in the run that is to be resumed; go on as it "
                "began, or train anew in another folder"
            )


def _described(objective: Objective) -> str:
    """Its class, and what it was made with, as far as that is numbers and words."""
    made_with = {name: getattr(objective, name, None) for name in inspect.signature(type(objective)).parameters}
    plain = [f"{name}={value}" for name, value in made_with.items() if isinstance(value, int | float | str)]
    return f"{type(objective).__name__}({', '.join(plain)})"


def _copied(weights: dict[str, Any]) -> dict[str, Any]:
    """Copy weights; a module may have an extra state, which is no tensor, among them."""
    return {name: _copy(value) for name, value in weights.items()}


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)
