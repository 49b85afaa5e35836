"""A pair of programs called on one batch: draws of the guide, and their weights by the model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any, Self

import pyro
import torch
from pyro import poutine
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.densities import density_of, own_scale, term_of_site
from pyrovae.engine.particles import in_turn, together, warn_in_turn
from pyrovae.engine.plates import Plates, locate_plates
from pyrovae.engine.sites import DENSITY, Site, density_sites, latent_sites, observed_sites
from pyrovae.engine.traces import replaying, trace_of
from pyrovae.engine.vmap import mapped
from pyrovae.engine.weights import LogWeights, weights_of_traces
from pyrovae.errors import InputError
from pyrovae.runtime.arguments import devices
from pyrovae.runtime.module_state import StateSnapshot
from pyrovae.runtime.parameters import Program


class ProgramContext(ABC):
    """A program that is a context manager, within which it runs and the densities of its sites are computed.

    Some distributions, zuko's flows among them, call their networks only then.
    """

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class Call:
    """A pair of programs called on one batch, in the parameter store that is open.

    Attributes:
        model: the model.
        guide: its proposal.
        args: what both are called with.
        kwargs: what both are called with, by name.
        particles: the number K of draws a datum.
        plates: where the data lie, if that is known.
        snapshot: the state of the modules, restored before every run of a program; None to keep what earlier runs left.
    """

    model: Program
    guide: Program
    args: tuple
    kwargs: dict
    particles: int
    plates: Plates | None
    snapshot: StateSnapshot | None = None

    @property
    def nesting(self) -> int:
        """How deep plates nest; the dimension of the particles is the next."""
        return 1 if self.plates is None else self.plates.nesting

    def draw(self) -> Trace:
        """The guide's trace: the draws, with sites of subsampled plates."""
        return self._trace(self.guide)

    def weigh(self, draws: Trace, at: Trace | None = None) -> LogWeights:
        """The weights of draws; with ``at``, the model runs at those tensors, which have the same values."""
        return self.compose(self.observe(draws if at is None else at), draws)

    def observe(self, draws: Trace) -> Trace:
        """The model's trace at the draws."""
        return self._trace(self.model, draws)

    def unguided(self) -> Trace:
        """The model's trace at the data, with latents that it draws itself."""
        return self._trace(self.model)

    def propose(self, draws: Trace) -> Trace:
        """The guide's trace at values that were drawn before."""
        return self._trace(self.guide, draws)

    def simulate(self) -> Trace:
        """The model's trace with nothing observed; the observations are under ``obs`` in the ``infer`` of their sites."""
        return self._trace(self.model, free=True)

    def compose(self, model_trace: Trace, draws: Trace) -> LogWeights:
        """Compose the weights of the traces of model and guide."""
        model_trace, guide_trace = prune_subsample_sites(model_trace), prune_subsample_sites(draws)
        found = locate_plates(model_trace, guide_trace, self.plates)
        if found.nesting > self.nesting:
            raise InputError(
                f"plates nest {found.nesting} deep, where {self.nesting} was expected; call find_plates((model, guide), x), "
                "or the objective's module once, before recording the program"
            )
        with pyro.validation_enabled(False):
            return weights_of_traces(model_trace, guide_trace, self.particles, self.plates or found)

    def density(self, proposed: Trace, plates: Plates) -> Tensor:
        r""":math:`\log q` of a guide's trace, shape ``(K, B)``."""
        return self._sum(density_sites(prune_subsample_sites(proposed)), plates)

    def joint(self, model_trace: Trace, draws: Trace, plates: Plates) -> Tensor:
        r""":math:`\log p(x, z)` of a model's trace at these draws, shape ``(K, B)``."""
        model_trace = prune_subsample_sites(model_trace)
        return self._sum([*latent_sites(model_trace, draws), *observed_sites(model_trace)], plates)

    def _sum(self, sites: list[Site], plates: Plates) -> Tensor:
        with pyro.validation_enabled(False):
            terms = [term_of_site(site, self.particles, plates, own_scale(site, plates)) for site in sites]
        return reduce(add, terms, torch.zeros(()))

    def _trace(self, program: Program, draws: Trace | None = None, free: bool = False) -> Trace:
        """The trace of all particles; of a :class:`ProgramContext`, densities are taken within it."""
        within = isinstance(program, ProgramContext)
        with pyro.validation_enabled(False), program if within else nullcontext():
            trace = self._run(poutine.uncondition(program) if free else program, draws)
            for site in density_sites(trace) if within else ():
                site[DENSITY] = site[DENSITY] if DENSITY in site else density_of(site)
        return trace

    def _run(self, program: Program, draws: Trace | None) -> Trace:
        way = "together" if self.plates is None else self.plates.particles
        if way == "together":
            return self._single(together(program, self.particles, self.nesting), draws)
        single = partial(self._single, program)
        if way == "mapped" and self.particles > 1:
            return mapped(single, draws, self.particles, self.nesting, self._device)
        if self.particles > 1 and self.plates is not None and self.plates.reason:
            warn_in_turn(self.plates.reason, self.particles)
        return in_turn(partial(_with_densities, single), draws, self.particles, self.nesting, self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(devices(self.args, self.kwargs)), torch.device("cpu"))

    def _single(self, program: Program, draws: Trace | None) -> Trace:
        """The trace of one run, at draws where there are some."""
        if self.snapshot is not None:
            self.snapshot.restore()
        return trace_of(program if draws is None else replaying(program, draws), self.args, self.kwargs)


def _with_densities(run: Callable[[Trace | None], Trace], draws: Trace | None) -> Trace:
    """The trace of one run, whose sites have their log densities."""
    trace = run(draws)
    for site in density_sites(trace):
        site[DENSITY] = density_of(site)
    return trace
