r"""K runs of one program, as one trace with the particles along its outermost dimension.

There are three ways, and all give what K single runs give, each as the author of the program wrote it:

============  =====================================================================================================
``together``  one run inside one more, outermost, plate: for programs that name the axes of their values from the right
``mapped``    one run under ``torch.func.vmap``: the program sees the axes of a single run. What depends on the data
              alone is computed once
``in turn``   one run after another
============  =====================================================================================================

What a program draws beside its sample sites, a mask of dropout say, each run draws for itself; together they share what does
not depend on the latent: one mask of the encoder for all particles of a datum.

In the traces of all three the values of a site have shape ``(K, ..., B, *event_shape)``, but for observed values that all
particles share.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import pyro
import torch
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.subsample_messenger import _Subsample
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.lifting import NotLiftedError, Recipe, lift, recipe
from pyrovae.engine.mappable import Mappable, Statistics
from pyrovae.engine.supports import Site
from pyrovae.errors import InputError

Way = Literal["together", "mapped", "in turn"]
PLATE = "_particles"
"""The name of the plate in which particles run together."""
DENSITY = "_density"
"""Where a site keeps its log density, if that was computed in the run."""
_RANK = "_rank"
"""Where a site keeps the number of dimensions that its value has in a single run."""
_particle: ContextVar[Tensor | None] = ContextVar("particle", default=None)

Run = Callable[[Trace | None], Trace]
"""A run of a program, at the draws of a trace where there is one, which gives its trace."""


def replaying(program: Callable[..., Any], draws: Trace) -> Callable[..., Any]:
    """The program made to draw these values."""
    return _Replay(draws)(program)


class _Replay(ReplayMessenger):
    """Leaves a site's ``infer`` its own: a guide that runs the model keeps the prior of that run there."""

    def _pyro_sample(self, msg: Any) -> None:
        infer = msg["infer"]
        super()._pyro_sample(msg)
        msg["infer"] = infer


def together(program: Callable[..., Any], particles: int, nesting: int) -> Callable[..., Any]:
    """The program inside the plate of particles, whose dimension is the one beyond those of its own plates."""
    return pyro.plate(PLATE, particles, dim=-1 - nesting)(program)


def current_particle() -> Tensor | None:
    """The number of the particle that runs, from 0; ``None`` where all run together."""
    return _particle.get()


class ParticlesInTurnWarning(UserWarning):
    """Particles run one after another, because neither way to run them at once gives what single runs give."""


def warn_in_turn(reason: str | None, particles: int) -> None:
    """Say what particles that run one after another cost, and why they do."""
    warnings.warn(
        f"{particles} particles run one after another, which takes {particles} times as long as one, because no way to run "
        f"them at once gives what single runs give ({reason})",
        ParticlesInTurnWarning,
        stacklevel=2,
    )


def ranked(draws: Trace, ranks: Mapping[str, int], particles: int) -> Trace:
    """Draws of particles that ran together, told how many dimensions each value has in a single run."""
    changed = draws.copy()
    for name, site in _sites(draws):
        if name in ranks and not site["is_observed"]:
            value: Tensor = site["value"]
            changed.nodes[name] = {**site, "value": value.expand(particles, *value.shape[1:]), _RANK: ranks[name]}  # pyright: ignore
    return changed


def is_of_each(site: Site) -> bool:
    """Whether the value of a site is one of each particle, and not shared by all."""
    return _RANK in site and _rank(site) > site[_RANK]


def _rank(site: Site) -> int:
    return site["value"].dim() if isinstance(site["value"], Tensor) else 0


def in_turn(run: Run, draws: Trace | None, particles: int, nesting: int, device: torch.device) -> Trace:
    """The trace of single runs, one after another, on a device."""
    first: Trace | None = None
    traces = []
    for k in range(particles):
        with _numbered(torch.full((), k, device=device)):
            traces.append(run(_with_subsamples(_single(draws, k), first)))
        first = traces[0]
    _require_same_sites(traces)
    return _lifted(traces, nesting)


def mapped(run: Run, draws: Trace | None, particles: int, nesting: int, device: torch.device) -> Trace:
    """The trace of single runs that ``torch.func.vmap`` makes at once, on a device.

    Raises:
        NotLiftedError: where a distribution cannot be made one of all particles.
        Exception: whatever an operation raises that has no rule for this.
    """
    names = [*_latents(draws)]
    values = [] if draws is None else [_rows(draws.nodes[name]) for name in names]
    kept: list[_Outputs] = []

    def one(k: Tensor, *rows: Tensor) -> list[Tensor]:
        single = None if draws is None else with_values(draws, dict(zip(names, rows, strict=True)))
        with _numbered(k), Mappable() as mappable:
            trace = run(single)
        kept.append(_Outputs(trace, mappable.statistics))
        return kept[-1].tensors

    found = torch.func.vmap(one, randomness="different")(torch.arange(particles, device=device), *values)
    return kept[0].lifted(found, particles, nesting)


@contextmanager
def _numbered(k: Tensor) -> Iterator[None]:
    token = _particle.set(k)
    try:
        yield
    finally:
        _particle.reset(token)


def _sites(trace: Trace) -> Iterator[tuple[str, Site]]:
    """The sample sites, but for those that choose a subsample."""
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and not isinstance(site["fn"], _Subsample):
            yield name, site


def _latents(trace: Trace | None) -> Iterator[str]:
    """The names of the sites whose values are one a particle."""
    if trace is not None:
        yield from (name for name, site in _sites(trace) if _RANK in site and not site["is_observed"])


def _single(draws: Trace | None, k: int) -> Trace | None:
    """The draws of one particle, of the shapes that they have in a single run."""
    if draws is None:
        return None
    return with_values(draws, {name: _rows(draws.nodes[name])[k] for name in _latents(draws)})


def _rows(site: Site) -> Tensor:
    """The values of a site as those of single runs, one after another."""
    value = site["value"]
    return value.reshape(len(value), *value.shape[value.dim() - site[_RANK] :])


def with_values(trace: Trace, values: dict[str, Tensor]) -> Trace:
    """The trace with other values at some sites."""
    changed = trace.copy()
    for name, value in values.items():
        site: Site = {part: kept for part, kept in trace.nodes[name].items() if part != DENSITY}
        changed.nodes[name] = site | {"value": value}
    return changed


def _with_subsamples(draws: Trace | None, first: Trace | None) -> Trace | None:
    """The draws, with the subsamples of the first particle, which all share."""
    if first is None:
        return draws
    changed = Trace() if draws is None else draws.copy()
    for name, site in first.nodes.items():
        if site["type"] == "sample" and isinstance(site["fn"], _Subsample) and name not in changed:
            changed.add_node(name, **site)
    return changed


def _require_same_sites(traces: Sequence[Trace]) -> None:
    first = [name for name, _ in _sites(traces[0])]
    for trace in traces[1:]:
        if differing := set(first) ^ {name for name, _ in _sites(trace)}:
            raise InputError(
                f"site {min(differing)!r} is in some runs of the program and not in others, so that particles have other "
                "latents; draw the same sites in every run, and mask what does not count"
            )


def _lifted(traces: Sequence[Trace], nesting: int) -> Trace:
    lifted = traces[0].copy()
    for name, first in _sites(traces[0]):
        sites = [trace.nodes[name] for trace in traces]
        parts = {part: [site[part] for site in sites] for part in _parts(first)}
        stacked = {part: torch.stack(values) for part, values in parts.items() if not _are_shared(first, part, values)}
        lifted.nodes[name] = _of_all(first, lift([site["fn"] for site in sites], nesting), stacked, nesting)
    return lifted


def _parts(site: Site) -> list[str]:
    """What a site has in tensors, beside its distribution."""
    return [part for part in ("value", "scale", "mask", DENSITY) if isinstance(site.get(part), Tensor)]


def _are_shared(site: Site, part: str, values: Sequence[Tensor]) -> bool:
    """Whether one tensor stands for all particles, as the data do."""
    one_each = part == DENSITY or (part == "value" and not site["is_observed"])
    return not one_each and all(value is values[0] for value in values)


def _of_all(site: Site, fn: Any, parts: dict[str, Tensor], nesting: int) -> Site:
    """A site of one run with what all runs have there, shapes ``(K, *shape)``."""
    aligned = {
        part: _aligned(values, nesting + (site["fn"].event_dim if part == "value" else 0)) for part, values in parts.items()
    }
    return {**site, **aligned, "fn": fn, _RANK: _rank(site)}


def _aligned(stacked: Tensor, dims: int) -> Tensor:
    """Values of shape ``(K, *shape)``, with dimensions of size 1 after the first until ``dims`` follow it."""
    missing = max(0, dims + 1 - stacked.dim())
    return stacked.reshape(len(stacked), *[1] * missing, *stacked.shape[1:])


class _Outputs:
    """What a run under ``vmap`` has to hand out: the tensors of its trace, in one list.

    Raises:
        NotLiftedError: where a distribution cannot be taken apart.
    """

    def __init__(self, trace: Trace, statistics: list[Statistics]) -> None:
        _require_whole_plates(trace)
        self._trace, self._statistics = trace, statistics
        self._recipes: dict[str, Recipe] = {name: recipe(site["fn"]) for name, site in _sites(trace)}
        self.tensors: list[Tensor] = []
        for name, site in _sites(trace):
            self.tensors += [leaf.value for leaf in self._recipes[name].leaves()]
            self.tensors += [site[part] for part in _parts(site)]
        for each in statistics:
            self.tensors += [each.mean, each.variance]

    def lifted(self, found: Sequence[Tensor], particles: int, nesting: int) -> Trace:
        """The trace of all runs, made of what the tensors came out as, each of shape ``(K, *shape)``."""
        values = iter(found)
        lifted = self._trace.copy()
        for name, site in _sites(self._trace):
            made = self._recipes[name]
            leaves = [next(values) for _ in made.leaves()]
            fn = made.lifted(iter([value[0] if _is_shared(value) else value for value in leaves]), particles, nesting)
            parts = {part: next(values) for part in _parts(site)}
            one_each = {part: value for part, value in parts.items() if not (_is_shared(value) and _may_share(site, part))}
            lifted.nodes[name] = _of_all(site, fn, one_each, nesting)
        for each in self._statistics:
            each.update(next(values), next(values))
        return lifted


def _require_whole_plates(trace: Trace) -> None:
    """Raise where a plate chooses a subsample, which all particles must share and ``vmap`` would draw for each."""
    for name, site in trace.nodes.items():
        fn = site.get("fn")
        if isinstance(fn, _Subsample) and fn.subsample_size not in (None, fn.size):
            raise NotLiftedError(f"plate {name!r} chooses a subsample")


def _may_share(site: Site, part: str) -> bool:
    return part != "value" or site["is_observed"]


def _is_shared(value: Tensor) -> bool:
    """Whether what ``vmap`` handed out is one value for all particles, which it expands."""
    return value.stride(0) == 0
