"""The optimiser of a training and its learning-rate schedule: made, tried, stepped, restored and slowed down."""

import warnings
from collections.abc import Callable, Iterable
from copy import copy, deepcopy
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pyrovae.errors import InputError
from pyrovae.internals.torch_internals import inner_schedules

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeSchedule = Callable[[Optimizer], LRScheduler]


def make_optimizer(
    module: nn.Module, optimizer: MakeOptimizer, scheduler: MakeSchedule | None, epochs: int
) -> tuple[Optimizer, LRScheduler | None]:
    """Make the optimiser of a module's trainable parameters, and its schedule.

    Raises:
        InputError: where there are no parameters, where either cannot be made, or where the schedule ends before the run.
    """
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
    if scheduler is not None:
        _rehearse(made, scheduler, epochs)
    return made, schedule


def step_schedule(schedule: LRScheduler | None, loss: float) -> None:
    """Step a schedule at the end of an epoch; one that waits for a plateau watches the loss."""
    if schedule is None:
        return
    with warnings.catch_warnings():  # steps were made, but perhaps before the run was resumed, or by a tape or a graph
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler.step\(\)` before", UserWarning)
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(loss)
        else:
            schedule.step()


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimiser, but for the choice of kernels, which depends on the device.

    Raises:
        InputError: where it is the state of another optimiser.
    """
    names = ("fused", "foreach", "capturable")
    kernels = [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(deepcopy(state))
    except ValueError as error:
        raise InputError(f"the optimiser is not that of the run to be resumed ({error}); go on as it began") from error
    for group, own in zip(optimizer.param_groups, kernels, strict=True):
        group.update(own)


def scale_learning_rates(optimizer: Optimizer, schedule: Any, factor: float) -> None:
    """Multiply the learning rates of an optimiser, and those that its schedule will set, by a factor."""
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):
            if name in group:
                group[name] = group[name] * factor
    for each in (schedule, *inner_schedules(schedule)):
        for name in ("base_lrs", "max_lrs"):
            if hasattr(each, name):
                setattr(each, name, [rate * factor for rate in getattr(each, name)])


def _rehearse(optimizer: Optimizer, scheduler: MakeSchedule, epochs: int) -> None:
    """Step a schedule like that of the run through all of its epochs; raise an InputError where it fails on the way."""
    twin = copy(optimizer)
    twin.param_groups = [dict(group) for group in optimizer.param_groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of there being no steps of the optimiser
        schedule = scheduler(twin)
        for epoch in range(1, epochs + 1):
            try:
                step_schedule(schedule, 0.0)
            except Exception as error:
                raise InputError(
                    f"the learning-rate schedule fails after epoch {epoch} of {epochs}: {error}; it is stepped once an "
                    f"epoch, so make it for {epochs} steps"
                ) from error
