"""The choice of how the particles of a pair run: together, mapped, or in turn (:mod:`pyrovae.engine.particles`)."""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from pyrovae.engine.agreement import OTHER, disagreement
from pyrovae.engine.call import Call
from pyrovae.engine.particles import RunMode
from pyrovae.engine.plates import Plates
from pyrovae.internals.torch_internals import BatchNorm
from pyrovae.runtime.module_state import StateSnapshot
from pyrovae.runtime.perturbation import perturbed


def with_run_mode(call: Call, ranks: Mapping[str, int], modules: list[nn.Module]) -> Plates:
    """Find out how particles run, and return the call's plates with the answer.

    Parameters are moved apart meanwhile, so that none hides an axis, unless the program fails with such parameters.
    """
    ways: tuple[RunMode, ...] = ("together",) if _averages_all_batches(modules) else ("together", "mapped")
    parameters = [*{value: None for module in modules for value in module.parameters() if value.requires_grad}]
    with perturbed(modules):
        try:
            found = _first_that_agrees(replace(call, snapshot=StateSnapshot(modules)), ranks, ways, parameters)
        except Exception:  # a program that is given, say, a matrix that is no covariance any more
            found = None
    if found is None or (found.particles == "in turn" and OTHER not in (found.reason or "")):
        return _first_that_agrees(replace(call, snapshot=StateSnapshot(modules)), ranks, ways, parameters)
    return found


def _averages_all_batches(modules: list[nn.Module]) -> bool:
    """Whether batch normalisation in training weighs all batches alike, which counts runs one after another."""
    parts = {part for module in modules for part in module.modules() if isinstance(part, BatchNorm)}
    return any(part.training and part.track_running_stats and part.momentum is None for part in parts)


def _first_that_agrees(
    call: Call, ranks: Mapping[str, int], ways: tuple[RunMode, ...], parameters: list[nn.Parameter]
) -> Plates:
    """The plates with the first way in which particles have the weights of single runs at the same draws.

    Their gradients with respect to these parameters must agree, too.
    """
    plates, reasons = call.plates, []
    assert plates is not None
    for way in ways:
        reason = disagreement(replace(call, plates=replace(plates, particles=way)), ranks, parameters)
        if reason is None:
            return replace(plates, particles=way)
        reasons.append(f"{way}: {reason}")
    return replace(plates, particles="in turn", reason="; ".join(reasons))
