r"""The density of the aggregate posterior, the mixture of what a guide proposes for all data.

.. math::
    q(z) = \frac1N \sum_{m=1}^N q(z \mid x_m)

at latents that were drawn for some of the data: the guide is run at other data's latents, a block of both at a time.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.shapes import data_place
from pyrovae.engine.sites import Site, with_values
from pyrovae.engine.weights import LogWeights
from pyrovae.runtime.batches import Batch, Columns, batches


class LatentDraws(NamedTuple):
    """Draws of a guide without the data that they were drawn for.

    Attributes:
        draws: a guide's trace, whose values have shape ``(R, ..., 1, *event_shape)`` at the latent sites.
        places: where, from behind, each site's value has the 1 that is to become the data's dimension.
        number: the number R of draws, particle by particle.
    """

    draws: Trace
    places: dict[str, int]
    number: int

    @classmethod
    def from_trace(cls, draws: Trace, weights: LogWeights) -> "LatentDraws":
        """Take the latents of K draws for each of B data out of a guide's trace, R = K * B."""
        where = places(weights)
        drawn: dict[str, Any] = {name: draws.nodes[name]["value"] for name in where}
        values = {name: _as_rows(drawn[name], place) for name, place in where.items()}
        return cls(with_values(prune_subsample_sites(draws), values), where, weights.total.numel())

    def pieces(self, most: int, data: int) -> Iterator[tuple[Trace, int]]:
        """Yield at most so many draws at a time, expanded to as many data, and their number."""
        for start in range(0, self.number, most):
            sites: dict[str, Site] = {name: self.draws.nodes[name] for name in self.places}
            rows = {name: site["value"][start : start + most] for name, site in sites.items()}
            values = {name: _repeated(value, self.places[name], data) for name, value in rows.items()}
            yield with_values(self.draws, values), min(most, self.number - start)


def log_aggregate_density(
    pair: Pair, data: Columns, latents: Sequence[LatentDraws], device: torch.device, max_pairs: int
) -> list[Tensor]:
    r"""Compute :math:`\log q(z)` of latents under the mixture of all data; each of shape ``(R,)``, float64.

    One run of the guide has at most ``max_pairs`` draws times data, about as many of the one as of the other: the encoder
    sees the data anew in each of them.
    """
    at_once = min(len(data), math.isqrt(max_pairs))
    sums = [torch.full((each.number,), -math.inf, dtype=torch.float64, device=device) for each in latents]
    for batch in batches(data, at_once, device=device):
        for each, log_sum in zip(latents, sums, strict=True):
            pieces = each.pieces(max_pairs // at_once, len(batch))
            of_batch = torch.cat([log_density(pair, batch, *piece).logsumexp(1) for piece in pieces])
            log_sum.copy_(torch.logaddexp(log_sum, of_batch))
    return [log_sum - math.log(len(data)) for log_sum in sums]


def log_density(pair: Pair, batch: Batch, draws: Trace, number: int) -> Tensor:
    r"""Compute :math:`\log q(z_r \mid x_m)` of given latents, shape ``(number, len(batch))``, float64."""
    assert pair.plates is not None
    with pair.opened() as programs:
        call = Call(*programs, (batch.x,), batch.given, number, pair.plates)
        return call.density(call.propose(draws), pair.plates).double()


def places(weights: LogWeights) -> dict[str, int]:
    """Find the dimension of the data, counted from the right, in the values of each latent site of the guide."""
    sites: dict[str, Site] = {name: weights.guide.nodes[name] for name in weights.latent_terms}
    return {name: data_place(site, weights.plates) for name, site in sites.items()}


def _as_rows(value: Tensor, place: int) -> Tensor:
    return value.movedim(place, 1).flatten(0, 1).unsqueeze(place)


def _repeated(value: Tensor, place: int, data: int) -> Tensor:
    shape = list(value.shape)
    shape[place] = data
    return value.expand(shape)
