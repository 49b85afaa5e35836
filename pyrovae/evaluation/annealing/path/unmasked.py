"""Programs without the masks of latents that some data do not have.

A latent that is masked in model and guide alike (a label that is known, a time step after the end of a sequence) has no
density where it is masked, and nothing depends on it there. Integrals over it then do not end, and sums count it once for
each outcome. Without the masks it has the density of its distribution, which integrates to one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro.distributions import Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.plates import Plates
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import is_masked
from pyrovae.engine.weights import LogWeights
from pyrovae.runtime.parameters import Program


def absent_latents(weights: LogWeights) -> frozenset[str]:
    """Return the names of the latents that are masked in both programs."""
    programs = weights.model, weights.guide
    masked = ({name for name, site in program.nodes.items() if _is_masked(site)} for program in programs)
    return frozenset(set(weights.latent_terms).intersection(*masked))


def _is_masked(site: Site) -> bool:
    return site["type"] == "sample" and is_masked(site)


@contextmanager
def called_unmasked(
    pair: Pair, names: frozenset[str], x: Tensor, given: dict[str, Tensor], particles: int, plates: Plates | None
) -> Iterator[Call]:
    """Call a pair on a batch without the masks of the named latents."""
    with pair.opened() as programs:
        model, guide = (_Unmasked(program, names) if names else program for program in programs)
        yield Call(model, guide, (x,), given, particles, plates)


class _Unmasked(Messenger):
    def __init__(self, program: Program, names: frozenset[str]) -> None:
        super().__init__()
        self._program, self._names = program, names

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self:
            return self._program(*args, **kwargs)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self._names:
            msg["mask"], msg["fn"] = None, _without_masks(msg["fn"])


def _without_masks(distribution: Any) -> Any:
    if isinstance(distribution, MaskedDistribution):
        return _without_masks(distribution.base_dist)
    if isinstance(distribution, Independent):
        return Independent(_without_masks(distribution.base_dist), distribution.reinterpreted_batch_ndims)
    return distribution
