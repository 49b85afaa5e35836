"""Draws of the aggregate posterior, and of the prior that they should look like."""

from typing import NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.programs import PairLike, programs, takes_pair
from pyrovae.engine.shapes import coordinates
from pyrovae.engine.sites import Site
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import require_positive
from pyrovae.evaluation.latent.weighted_batches import weighed
from pyrovae.runtime.batches import DataLike, as_data
from pyrovae.runtime.device import home
from pyrovae.runtime.eval_mode import evaluating
from pyrovae.runtime.seeds import seeded


class AggregatePosterior(NamedTuple):
    """Equally many draws of prior and aggregate posterior, each a tensor of shape ``(S * N, D)``, on the CPU."""

    prior: Tensor
    posterior: Tensor


@takes_pair
def aggregate_posterior(
    pair: PairLike,
    data: DataLike,
    num_samples: int = 1,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    max_rows: int | None = None,
) -> AggregatePosterior:
    r"""Draw from the prior and from the mixture of what the guide proposes for all data.

    .. math::
        z_{sn} \sim q(z \mid x_n), \text{ all of them draws of } q(z) = \frac1N \sum_n q(z \mid x_n); \quad z'_{sn} \sim p(z)

    Args:
        pair: a ``VAE``, or the tuple ``(model, guide)`` of two Pyro programs; the model's latents are
            drawn as well, one for each datum.
        data: a tensor or array of shape ``(N, *event_shape)``, a ``Dataset``, or a mapping as :func:`pyrovae.fit` takes.
        num_samples: draws S a datum.
        seed: where the noise starts; the caller's random generators stay as they were.
        device: where to put each batch; by default it stays where it is.
        max_rows: at most so many rows, draws times data, in one pass of the programs; if null, 4,096.

    Returns:
        :class:`AggregatePosterior`: the latent sites in the model's order, each flattened; ``plots.aggregate_posterior``
        draws it.

    Raises:
        InputError: for numbers below 1, and for a pair that cannot be weighed (see :func:`pyrovae.log_weights`).
    """
    model, guide = programs(pair)
    require_positive(num_samples=num_samples, max_rows=max_rows)
    columns = as_data(data)
    device = home(columns, device)
    module = Pair(model, guide)
    prior, posterior = [], []
    with torch.no_grad(), evaluating(model, guide), seeded(seed, device):
        for batch, draws, weights in weighed(module, columns, num_samples, device, max_rows, "the aggregate posterior"):
            with module.opened() as opened:
                own = Call(*opened, (batch.x,), batch.given, num_samples, module.plates).unguided()
            prior.append(_flat(own, weights))
            posterior.append(_flat(draws, weights))
    return AggregatePosterior(torch.cat(prior), torch.cat(posterior))


def _flat(trace: Trace, weights: LogWeights) -> Tensor:
    """Flatten the values of the latent sites to shape ``(K * B, D)``."""
    sites: list[Site] = [trace.nodes[name] for name in weights.latent_terms]
    values = [coordinates(site["value"], site, weights.plates) for site in sites]
    return torch.cat([value.to(torch.get_default_dtype()) for value in values], -1).flatten(0, 1).cpu()
