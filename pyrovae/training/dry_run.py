"""The programs, run on the data before training, so that what is wrong with either is found before anything is changed."""

import math
import warnings
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from pyrovae.data.split import Split
from pyrovae.engine.derivatives import derivatives
from pyrovae.errors import InputError
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.eval_mode import evaluating, modes_kept
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers
from pyrovae.training.splits import moved_to
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

AT_ONCE = 2**19
"""Numbers of data that the programs are shown together before training, at the least: 668 pictures of 28 x 28."""


class EvaluationModeWarning(UserWarning):
    """Parts of the networks are in evaluation mode, and training leaves them there."""


def dry_run(
    module: ObjectiveModule,
    splits: list[Split],
    batch_size: int,
    *,
    device: str | None,
    place: torch.device,
    workers: int,
) -> list[Split]:
    """Run the programs on the data, in evaluation mode, and return the splits, on the device where they fit.

    Args:
        module: the objective on the pair, which is started, and moved to ``device`` where that is given.
        splits: the training data, and perhaps validation data.
        batch_size: data in a batch.
        device: what the caller asked for.
        place: where the pair is trained.
        workers: processes that read ahead, for data that are not in memory.
    """
    with evaluating(module.model, module.guide):
        _start(module, splits[0], batch_size)
        if device is not None:
            module.to(device)
        splits = [moved_to(split, place) for split in splits]
        for split in splits:
            _check(module, split, batch_size, place, workers)
    return splits


def check_last_batch(module: ObjectiveModule, train: Split, batch_size: int, device: torch.device) -> None:
    """Train on the few data of an epoch's last batch, and leave everything as it was.

    Raises:
        InputError: where the networks fail on so few.
    """
    rest = len(train) % batch_size
    if not rest:
        return
    batch = next(train.read(rest, shuffle=False, device=device))
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


def warn_of_evaluation_mode(module: ObjectiveModule) -> None:
    """Warn of networks that stay in evaluation mode."""
    if resting := module.resting():
        names = [name for name in resting if name.rpartition(".")[0] not in resting]
        warnings.warn(
            f"these parts are in evaluation mode and stay in it: {', '.join(names)}; where they are to train, call train() "
            "on them before",
            EvaluationModeWarning,
            stacklevel=4,  # the caller of fit
        )


def _start(module: ObjectiveModule, train: Split, batch_size: int) -> None:
    """Find plates and parameters on one batch, where the parameters are now: those of functions join only here."""
    first = next(train.read(batch_size, shuffle=False, generator=torch.Generator()))
    first = first.to(next((value.device for value in module.parameters()), None))
    module.meet(first, mixed=True)
    if module.unknown:
        warnings.warn(
            f"the programs call networks that Pyro does not know, and which are not trained: {', '.join(module.unknown)}; "
            "name them by pyro.module, make them parts of a module, or set requires_grad=False where it is meant",
            UnmovedParameterWarning,
            stacklevel=5,  # the caller of fit
        )


def _check(module: ObjectiveModule, split: Split, batch_size: int, device: torch.device, workers: int) -> None:
    """Show the programs every datum held in memory, many at once, or the first batch of those that are not.

    What cannot be shown many at once is shown by batches as in training, which say what is wrong, or that nothing is.
    """
    if not isinstance(split.x, Tensor):
        _show(module, islice(split.read(batch_size, shuffle=False, device=device, workers=workers), 1))
        return
    many = AT_ONCE // max(1, math.prod(split.x.shape[1:]))
    try:
        _show(module, split.read(max(many, batch_size), shuffle=False, device=device))
    except Exception:  # of whatever type; those of a batch are raised
        _show(module, split.read(batch_size, shuffle=False, device=device))


def _show(module: ObjectiveModule, stream: Iterable[Batch]) -> None:
    for batch in stream:
        module.check(batch.x, **batch.given)
