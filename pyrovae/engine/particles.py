"""K runs of one program, as one trace with the particles along its outermost dimension.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.sites import PLATE
from pyrovae.engine.stacking import require_same_sites, single_draws, stacked_trace, with_subsamples

RunMode = Literal["together", "mapped", "in turn"]
"""How particles run."""
Run = Callable[[Trace | None], Trace]
"""A run of a program, at the draws of a trace where there is one, which gives its trace."""
_particle: ContextVar[Tensor | None] = ContextVar("particle", default=None)


def current_particle() -> Tensor | None:
    """The number of the particle that runs, from 0; ``None`` where all run together."""
    return _particle.get()


@contextmanager
def numbered(k: Tensor) -> Iterator[None]:
    """Set the number of the particle that runs meanwhile."""
    token = _particle.set(k)
    try:
        yield
    finally:
        _particle.reset(token)


class ParticlesInTurnWarning(UserWarning):
    """Particles run one after another, because neither way to run them at once gives what single runs give."""


def warn_in_turn(reason: str | None, particles: int) -> None:
    """Warn of what particles that run one after another cost, and say why they do."""
    warnings.warn(
        f"{particles} particles run one after another, which takes {particles} times as long as one, because no way to run "
        f"them at once gives what single runs give ({reason})",
        ParticlesInTurnWarning,
        stacklevel=2,
    )


def together(program: Callable[..., Any], particles: int, nesting: int) -> Callable[..., Any]:
    """Put a program inside the plate of particles, whose dimension is the one beyond those of its own plates."""
    return pyro.plate(PLATE, particles, dim=-1 - nesting)(program)


def in_turn(run: Run, draws: Trace | None, particles: int, nesting: int, device: torch.device) -> Trace:
    """Run particles one after another, on a device, and stack their traces."""
    first: Trace | None = None
    traces = []
    for k in range(particles):
        with numbered(torch.full((), k, device=device)):
            traces.append(run(with_subsamples(single_draws(draws, k), first)))
        first = traces[0]
    require_same_sites(traces)
    return stacked_trace(traces, nesting)
