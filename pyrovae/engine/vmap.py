"""Runs of one program mapped by ``torch.func.vmap``: the program sees the axes of a single run."""

from collections.abc import Sequence

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.out_of_place import BatchStatistics, OutOfPlace
from pyrovae.engine.particles import Run, numbered
from pyrovae.engine.recipes import NotLiftedError, Recipe, recipe
from pyrovae.engine.sites import Site, with_values
from pyrovae.engine.stacking import names_per_particle, rows_of_runs, sample_sites, site_of_all_runs, tensor_parts
from pyrovae.internals.pyro_internals import Subsample


def mapped(run: Run, draws: Trace | None, particles: int, nesting: int, device: torch.device) -> Trace:
    """Run particles at once by ``torch.func.vmap``, on a device, and return the trace of all.

    Raises:
        NotLiftedError: where a distribution cannot be made one of all particles.
        Exception: whatever an operation raises that has no rule for this.
    """
    names = [*names_per_particle(draws)]
    values = [] if draws is None else [rows_of_runs(draws.nodes[name]) for name in names]
    kept: list[_RunOutputs] = []

    def one(k: Tensor, *rows: Tensor) -> list[Tensor]:
        single = None if draws is None else with_values(draws, dict(zip(names, rows, strict=True)))
        with numbered(k), OutOfPlace() as out_of_place:
            trace = run(single)
        kept.append(_RunOutputs(trace, out_of_place.statistics))
        return kept[-1].tensors

    found = torch.func.vmap(one, randomness="different")(torch.arange(particles, device=device), *values)
    return kept[0].lifted(found, particles, nesting)


class _RunOutputs:
    """The tensors of a run's trace in one list, as ``vmap`` has to hand them out.

    Raises:
        NotLiftedError: where a distribution cannot be taken apart.
    """

    def __init__(self, trace: Trace, statistics: list[BatchStatistics]) -> None:
        _require_whole_plates(trace)
        self._trace, self._statistics = trace, statistics
        self._recipes: dict[str, Recipe] = {name: recipe(site["fn"]) for name, site in sample_sites(trace)}
        self.tensors: list[Tensor] = []
        for name, site in sample_sites(trace):
            self.tensors += [leaf.value for leaf in self._recipes[name].leaves()]
            self.tensors += [site[part] for part in tensor_parts(site)]
        for each in statistics:
            self.tensors += [each.mean, each.variance]

    def lifted(self, found: Sequence[Tensor], particles: int, nesting: int) -> Trace:
        """The trace of all runs, made of what the tensors came out as, each of shape ``(K, *shape)``."""
        values = iter(found)
        lifted = self._trace.copy()
        for name, site in sample_sites(self._trace):
            made = self._recipes[name]
            leaves = [next(values) for _ in made.leaves()]
            fn = made.lifted(iter([value[0] if _is_one_value(value) else value for value in leaves]), particles, nesting)
            parts = {part: next(values) for part in tensor_parts(site)}
            one_each = {
                part: value for part, value in parts.items() if not (_is_one_value(value) and _may_share(site, part))
            }
            lifted.nodes[name] = site_of_all_runs(site, fn, one_each, nesting)
        for each in self._statistics:
            each.update(next(values), next(values))
        return lifted


def _require_whole_plates(trace: Trace) -> None:
    """Raise where a plate chooses a subsample, which all particles must share and ``vmap`` would draw for each."""
    for name, site in trace.nodes.items():
        fn = site.get("fn")
        if isinstance(fn, Subsample) and fn.subsample_size not in (None, fn.size):
            raise NotLiftedError(f"plate {name!r} chooses a subsample")


def _may_share(site: Site, part: str) -> bool:
    return part != "value" or site["is_observed"]


def _is_one_value(value: Tensor) -> bool:
    """Whether what ``vmap`` handed out is one value for all particles, which it expands."""
    return value.stride(0) == 0
