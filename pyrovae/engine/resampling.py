"""Resampling: one particle chosen for each datum."""

from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.engine.shapes import spread
from pyrovae.engine.sites import density_sites, with_values
from pyrovae.engine.weights import LogWeights


def choose(draws: Trace, index: Tensor, weights: LogWeights) -> Trace:
    """Choose one particle per datum, ``index`` of shape ``(B,)``, and return its draws as the trace of a single particle."""
    values = {}
    for site in density_sites(prune_subsample_sites(draws)):
        if not site["is_observed"]:
            value = site["value"]
            place = spread(index[None], site, weights.plates)[(..., *[None] * site["fn"].event_dim)]
            values[site["name"]] = value.gather(0, place.expand(1, *value.shape[1:]))
    return with_values(draws, values)
