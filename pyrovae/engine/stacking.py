"""Traces of single runs stacked into one trace of all runs, and taken apart again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.lifting import lift
from pyrovae.engine.sites import DENSITY, Site, with_values
from pyrovae.errors import InputError
from pyrovae.internals.pyro_internals import Subsample

RANK = "_rank"
"""Where a site keeps the number of dimensions that its value has in a single run."""


def ranked(draws: Trace, ranks: Mapping[str, int], particles: int) -> Trace:
    """Note, in draws of particles that ran together, how many dimensions each value has in a single run."""
    changed = draws.copy()
    for name, site in sample_sites(draws):
        if name in ranks and not site["is_observed"]:
            value: Tensor = site["value"]
            changed.nodes[name] = {**site, "value": value.expand(particles, *value.shape[1:]), RANK: ranks[name]}  # pyright: ignore
    return changed


def is_of_each(site: Site) -> bool:
    """Whether each particle has a value of its own at a site, rather than one that all share."""
    return RANK in site and _rank(site) > site[RANK]


def _rank(site: Site) -> int:
    return site["value"].dim() if isinstance(site["value"], Tensor) else 0


def sample_sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The sample sites of a trace, except those that choose a subsample."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not isinstance(site["fn"], Subsample):
            yield name, site


def names_per_particle(trace: Trace | None) -> Iterator[str]:
    """The names of the sites that have one value per particle."""
    if trace is not None:
        yield from (name for name, site in sample_sites(trace) if RANK in site and not site["is_observed"])


def single_draws(draws: Trace | None, k: int) -> Trace | None:
    """The draws of particle ``k``, in the shapes that they have in a single run."""
    if draws is None:
        return None
    return with_values(draws, {name: rows_of_runs(draws.nodes[name])[k] for name in names_per_particle(draws)})


def rows_of_runs(site: Site) -> Tensor:
    """The values of a site as those of single runs, one after another."""
    value = site["value"]
    return value.reshape(len(value), *value.shape[value.dim() - site[RANK] :])


def crowded(draws: Trace) -> str | None:
    """Return the name of a site that has more values than one for each particle; None where there is none."""
    for name in names_per_particle(draws):
        site: Site = draws.nodes[name]
        if site["value"].shape[1 : _rank(site) - site[RANK]].numel() > 1:
            return name
    return None


def with_subsamples(draws: Trace | None, first: Trace | None) -> Trace | None:
    """Add to the draws the subsamples of the first particle, which all share."""
    if first is None:
        return draws
    changed = Trace() if draws is None else draws.copy()
    for name, site in first.nodes.items():
        if site["type"] == "sample" and isinstance(site["fn"], Subsample) and name not in changed:
            changed.add_node(name, **site)
    return changed


def require_same_sites(traces: Sequence[Trace]) -> None:
    """Raise an InputError that names a site which only some of the runs have."""
    first = [name for name, _ in sample_sites(traces[0])]
    for trace in traces[1:]:
        if differing := set(first) ^ {name for name, _ in sample_sites(trace)}:
            raise InputError(
                f"site {min(differing)!r} is in some runs of the program and not in others, so that particles have other "
                "latents; draw the same sites in every run, and mask what does not count"
            )


def stacked_trace(traces: Sequence[Trace], nesting: int) -> Trace:
    """Stack the traces of single runs; ``nesting`` is how deep plates nest."""
    lifted = traces[0].copy()
    for name, first in sample_sites(traces[0]):
        sites = [trace.nodes[name] for trace in traces]
        parts = {part: [site[part] for site in sites] for part in tensor_parts(first)}
        stacked = {part: torch.stack(values) for part, values in parts.items() if not _are_shared(first, part, values)}
        lifted.nodes[name] = site_of_all_runs(first, lift([site["fn"] for site in sites], nesting), stacked, nesting)
    return lifted


def tensor_parts(site: Site) -> list[str]:
    """The entries of a site that are tensors, beside its distribution."""
    return [part for part in ("value", "scale", "mask", DENSITY) if isinstance(site.get(part), Tensor)]


def _are_shared(site: Site, part: str, values: Sequence[Tensor]) -> bool:
    """Whether one tensor stands for all particles, as the data do."""
    one_each = part == DENSITY or (part == "value" and not site["is_observed"])
    return not one_each and all(value is values[0] for value in values)


def site_of_all_runs(site: Site, fn: Any, parts: dict[str, Tensor], nesting: int) -> Site:
    """The site of one run with the values of all runs, shapes ``(K, *shape)``."""
    aligned = {
        part: _with_plate_dims(values, nesting + (site["fn"].event_dim if part == "value" else 0))
        for part, values in parts.items()
    }
    return {**site, **aligned, "fn": fn, RANK: _rank(site)}


def _with_plate_dims(stacked: Tensor, dims: int) -> Tensor:
    """Values of shape ``(K, *shape)``, with dimensions of size 1 after the first until ``dims`` follow it."""
    missing = max(0, dims + 1 - stacked.dim())
    return stacked.reshape(len(stacked), *[1] * missing, *stacked.shape[1:])
