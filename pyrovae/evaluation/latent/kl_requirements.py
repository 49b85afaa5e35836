"""Requirements on a pair for the KL of its aggregate posterior from its prior to be computed."""

from typing import Any

import torch
from pyro.distributions import Delta
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.sites import Site, with_values
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.latent.aggregate_density import log_density, places
from pyrovae.evaluation.latent.kl_by_dimension import kl_by_dimension
from pyrovae.evaluation.latent.weighted_batches import weighed
from pyrovae.runtime.batches import Batch, Columns

TRIED = 64
"""Number of data on which the programs are tried first."""
WHAT = "the split of the KL"
"""Name of the estimate in refusals."""


def require_split(pair: Pair, data: Columns, device: torch.device) -> str | None:
    """Refuse a pair whose KL cannot be split, and return why there is no KL for each dimension, if there is none.

    Raises:
        InputError: as :func:`~.kl_decomposition.kl_decomposition` says.
    """
    batch, draws, weights = next(weighed(pair, data, 1, device, TRIED, WHAT))
    _require_latents_alone(weights)
    _require_repeatable(pair, batch, draws, weights)
    _require_one_prior(pair, batch, draws, weights)
    try:
        kl_by_dimension(weights)
    except InputError as error:
        return str(error)
    return None


def _require_latents_alone(weights: LogWeights) -> None:
    weights.require_latents_alone(
        "the density of the latents given x is not known; take a guide that draws the latents alone"
    )
    for name in weights.latent_terms:
        site: Site = weights.guide.nodes[name]
        if isinstance(base_distribution(site["fn"]), Delta):
            raise InputError(
                f"site {name!r} of the guide is a Delta, a point, whose KL from the prior is infinite; take a guide with a "
                "density there"
            )


def _require_repeatable(pair: Pair, batch: Batch, draws: Trace, weights: LogWeights) -> None:
    """Raise an InputError where the guide has another density at its own draws when it runs again."""
    again = log_density(pair, batch, prune_subsample_sites(draws), 1)
    if not torch.allclose(again, weights.log_proposal.double(), rtol=1e-3, atol=1e-2):
        difference = (again - weights.log_proposal).abs().max()
        raise InputError(
            f"the guide has other densities when it runs again at its own draws (they differ by {difference:.3g} nats), so "
            "that draws cannot be scored at other data; call eval() on the layer that is random (dropout?)"
        )


def _require_one_prior(pair: Pair, batch: Batch, draws: Trace, weights: LogWeights) -> None:
    """Raise an InputError where a latent has another density under the model when it is another datum's."""
    values: dict[str, Any] = {name: draws.nodes[name]["value"] for name in weights.latent_terms}
    moved = {
        name: value.roll(1, place) for (name, value), place in zip(values.items(), places(weights).values(), strict=True)
    }
    with pair.opened() as programs:
        call = Call(*programs, (batch.x,), batch.given, 1, pair.plates)
        latent = call.compose(call.observe(with_values(prune_subsample_sites(draws), moved)), draws).log_prior
    if not torch.allclose(latent, weights.log_prior.roll(1, 1), rtol=1e-3, atol=1e-2):
        raise InputError(
            "the prior is not the same for all data (it is given a context?), so that there is no one prior for the "
            "aggregate posterior to differ from; split the data of each context by themselves"
        )
