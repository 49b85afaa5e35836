"""The settings of a training run, checked before anything is computed or written."""

from pathlib import Path
from typing import Any

import torch

from pyrovae.errors import InputError, require_positive
from pyrovae.objectives import ELBO, Objective
from pyrovae.runs.run import Run
from pyrovae.runtime.parameters import Program, keeps_places, owner


def require_settings(*, validated: bool, patience: int | None, nonfinite: str, device: str | None, **counts: Any) -> None:
    """Raise an InputError for settings of ``fit`` that are out of range, or that do not go together."""
    require_positive(**counts, patience=patience)
    if nonfinite not in ("stop", "skip", "rewind"):
        raise InputError(f"nonfinite is {nonfinite!r}; expected 'stop', 'skip' or 'rewind'")
    if patience is not None and not validated:
        raise InputError("patience waits for the validation bound; pass validation data too")
    require_device(device)


def require_device(device: str | None) -> None:
    """Raise an InputError where torch has no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch built without CUDA asserts that there is none
        reason = str(error).partition("\n")[0]
        raise InputError(f"device is {device!r}, which is not available here ({reason}); take 'cpu'") from error


def require_amortized(guide: Program, batch_size: int, number: int, validated: bool) -> None:
    """Raise an InputError where a guide with parameters per datum would see other data than those."""
    if not keeps_places(guide):
        return
    kind = f"{type(owner(guide)).__name__} keeps per-datum parameters by place in the batch"
    if batch_size < number:
        raise InputError(f"{kind}; pass batch_size={number}, all data at once, or an amortized guide")
    if validated:
        raise InputError(f"{kind}, and has none for validation data; leave them out, or pass an amortized guide")


def as_objective(objective: Objective | None) -> Objective:
    """Return the objective, or the ELBO where none is given; raise an InputError for anything else."""
    objective = objective or ELBO()
    if not isinstance(objective, Objective):
        raise InputError(f"objective is {objective!r}; expected an instance, such as pyrovae.IWAE(5)")
    return objective


def as_run(run: Run | str | Path | None, resume: bool) -> Run | None:
    """Return the run of a folder; raise an InputError where it cannot be resumed and is to be."""
    if isinstance(run, str | Path):
        return Run(run, resume=resume)
    if resume and not (isinstance(run, Run) and run.resumes):
        raise InputError("resume is set, and run is not one to be resumed; pass its folder, or Run(path, resume=True)")
    return run
