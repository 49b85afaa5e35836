"""Sites of Pyro's traces: which are latent, which are observed, and which plates are around them."""

from typing import Any

from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.internals.pyro_internals import is_deterministic

Site = Any
"""One node of a Pyro trace."""
PLATE = "_particles"
"""The name of the plate in which particles run together."""
DENSITY = "_density"
"""Where a site keeps its log density, if that was computed in the run."""


def density_sites(trace: Trace) -> list[Site]:
    """The sites that carry a density, which those of ``pyro.deterministic`` do not."""
    sites: list[Site] = list(trace.nodes.values())
    return [site for site in sites if site["type"] == "sample" and not is_deterministic(site)]


def latent_sites(model: Trace, guide: Trace) -> list[Site]:
    """The latent sites of the model, without the imputed part of a site with ``obs_mask`` that the guide leaves to it."""
    sites = [site for site in density_sites(model) if not site["is_observed"]]
    return [site for site in sites if site["name"] in guide or not _is_imputed(site["name"], model)]


def _is_imputed(name: str, model: Trace) -> bool:
    base = name.removesuffix("_unobserved")
    return base != name and f"{base}_observed" in model and base in model


def observed_sites(trace: Trace) -> list[Site]:
    """The observed sites that carry a density, ``pyro.factor`` statements among them."""
    return [site for site in density_sites(trace) if site["is_observed"]]


def plate_frames(site: Site) -> list[Any]:
    """The vectorised plates around a site, the outermost first, without that of the particles."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != PLATE]


def with_values(trace: Trace, values: dict[str, Tensor]) -> Trace:
    """The trace with other values at some sites."""
    changed = trace.copy()
    for name, value in values.items():
        site: Site = {part: kept for part, kept in trace.nodes[name].items() if part != DENSITY}
        changed.nodes[name] = site | {"value": value}
    return changed
