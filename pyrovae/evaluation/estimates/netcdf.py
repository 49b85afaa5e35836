"""Estimates of log p(x) as netCDF files, which ArviZ reads; what is read may be a stranger's."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrovae.errors import InputError
from pyrovae.evaluation.estimates.effort import PROPOSALS, Effort

if TYPE_CHECKING:
    from xarray import Dataset

    from pyrovae.evaluation.estimates.estimate import LogLikelihood
    from pyrovae.untrusted.netcdf import Numbers

GROUP = "importance_sampling"
"""Group of an ArviZ file that holds an estimate."""
COLUMNS = ("log_p", "standard_error", "effective_sample_size", "k_hat", "smoothed", "jackknife", "jackknife_error")
"""Numbers that each datum has one of; files of version 0.1 end with the k-hat."""
EFFORT = {"draws": np.int64, "evaluations": np.int64, "trusted": bool, "met": bool}
"""Numbers that each datum has one of where estimates are to a tolerance, beside its proposal, and what they are."""
ATTRIBUTES = ("num_samples", "discrete_dimensions", "rounding", "discrete_latents", "tolerance", "level")
"""Numbers that the whole estimate has one of."""


def to_dataset(estimate: "LogLikelihood") -> "Dataset":
    """Arrange an estimate as an xarray data set with the dimensions ``datum`` and ``particles``."""
    from xarray import Dataset

    number = len(estimate.log_p)
    columns = {name: ("datum", getattr(estimate, name)) for name in COLUMNS}
    bounds = np.reshape(list(estimate.bounds.values()), (len(estimate.bounds), number))
    coordinates = {"datum": np.arange(number), "particles": np.array(list(estimate.bounds), dtype=int)}
    variables = columns | {"bound": (("particles", "datum"), bounds)}
    attributes: dict[str, Any] = {"num_samples": estimate.num_samples, "unit": "nats"}
    if estimate.discrete_dimensions:
        attributes["discrete_dimensions"] = estimate.discrete_dimensions
    if estimate.rounding:
        attributes["rounding"] = list(estimate.rounding)
    if estimate.discrete_latents:
        attributes["discrete_latents"] = 1
    if estimate.defensive is not None:
        variables["defensive"] = ("datum", estimate.defensive.astype(np.int8))
    if estimate.effort is not None:
        variables |= _effort_variables(estimate.effort)
        attributes |= {"tolerance": estimate.effort.tolerance, "level": estimate.effort.level}
    return Dataset(variables, coordinates, attributes)


def _effort_variables(effort: Effort) -> dict[str, Any]:
    """Arrange what estimates to a tolerance took; a proposal is its place in a list of names, which is an attribute."""
    places = np.array([PROPOSALS.index(name) for name in effort.proposal], dtype=np.int8)
    numbers = {name: getattr(effort, name) for name in EFFORT}
    variables = {name: ("datum", value.astype(np.int8) if value.dtype == bool else value) for name, value in numbers.items()}
    return variables | {"proposal": ("datum", places, {"names": ", ".join(PROPOSALS)})}


def read_fields(path: str | Path) -> dict[str, Any]:
    """Read the fields of a :class:`~.estimate.LogLikelihood` by name.

    Raises:
        InputError: for a file that is damaged, or holds anything else.
    """
    from pyrovae.untrusted.netcdf import read_numbers

    try:
        fields = _as_fields(
            read_numbers(Path(path), GROUP, (*COLUMNS, *EFFORT, "proposal", "particles", "bound", "defensive"), ATTRIBUTES)
        )
        _require_whole(fields)
    except InputError:
        raise
    except Exception as error:  # damage ends in errors of a dozen types
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}); expected estimates as to_netcdf writes them: "
            "estimate again"
        ) from error
    return fields


def _as_fields(found: "Numbers") -> dict[str, Any]:
    arrays, attributes = found
    shape = arrays["log_p"].shape
    dimensions, rounding = attributes.get("discrete_dimensions"), attributes.get("rounding")
    return {
        **{name: arrays.get(name, np.full(shape, math.nan)) for name in COLUMNS},
        "num_samples": int(attributes["num_samples"].item()),
        "bounds": dict(zip(arrays["particles"].tolist(), arrays["bound"], strict=True)),
        "discrete_dimensions": None if dimensions is None else int(dimensions.item()),
        "defensive": arrays["defensive"].astype(bool) if "defensive" in arrays else None,
        "rounding": None if rounding is None else tuple(rounding.tolist()),
        "discrete_latents": "discrete_latents" in attributes and bool(attributes["discrete_latents"].item()),
        "effort": _as_effort(found) if "tolerance" in attributes else None,
    }


def _as_effort(found: "Numbers") -> Effort:
    """Read what estimates to a tolerance took; raise a ValueError where it cannot be that."""
    arrays, attributes = found
    _require_effort(arrays)
    columns = {name: arrays[name].astype(kind) for name, kind in EFFORT.items()}
    proposal = np.array(PROPOSALS)[arrays["proposal"]]
    return Effort(float(attributes["tolerance"].item()), float(attributes["level"].item()), proposal, **columns)


def _require_effort(arrays: dict[str, Any]) -> None:
    """Raise a ValueError for a datum that no proposal answered, or without a draw, or that is met and not trusted."""
    shape = arrays["log_p"].shape
    columns = {name: arrays[name] for name in ("proposal", *EFFORT)}
    if any(column.shape != shape or column.dtype.kind not in "iu" for column in columns.values()):
        raise ValueError("what is said of the effort is not a whole number of each datum")
    ends = {"proposal": (0, len(PROPOSALS) - 1), "trusted": (0, 1), "met": (0, 1)}
    for name, column in columns.items():
        low, high = ends.get(name, (1, 2**53))
        if ((column < low) | (column > high)).any():
            raise ValueError(f"the effort's {name!r} is outside {low} to {high}")
    if (arrays["met"] > arrays["trusted"]).any():
        raise ValueError("the tolerance is met by what is not trusted")


def _require_whole(fields: dict[str, Any]) -> None:
    """Raise a ValueError where the numbers are not those of so many data."""
    log_p, bounds, defensive, rounding = (fields[name] for name in ("log_p", "bounds", "defensive", "rounding"))
    columns = [*(fields[name] for name in COLUMNS), *bounds.values()]
    if any(column.dtype.kind not in "iuf" or column.shape != (len(log_p),) for column in columns):
        raise ValueError("there is not one number a datum in every column")
    if not len(log_p) or (defensive is not None and defensive.shape != log_p.shape):
        raise ValueError("there are no data, or what is said of them is not of each")
    effort: Effort | None = fields["effort"]
    if effort is not None and not (0.0 < effort.tolerance < math.inf and 0.0 < effort.level < 1.0):
        raise ValueError("the tolerance, or its level, cannot be")
    if any(type(count) is not int or not 0 < count < 2**53 for count in (fields["num_samples"], *bounds)):
        raise ValueError("a number of draws or particles is no positive whole number")
    if (fields["discrete_dimensions"] or 0) < 0 or (rounding is not None and len(rounding) != 2):
        raise ValueError("its attributes are not those of estimates")
