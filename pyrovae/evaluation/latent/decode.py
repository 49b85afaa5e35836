"""The mean of a model's observed site at given latents."""

import torch
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.sites import Site, with_values
from pyrovae.engine.supports import is_discrete, stated_support
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.latent.reconstructions import observed_mean
from pyrovae.runtime.batches import Batch, batches
from pyrovae.runtime.memory import MAX_ROWS

REMEDY = "put other values there yourself: pyro.poutine.condition(model, data={...})"


def decode(pair: Pair, batch: Batch, z: Tensor) -> Tensor:
    r"""Compute the mean of :math:`p(x \mid z)` for given z, of which at most 4,096 are in one pass of the model.

    Args:
        pair: the programs.
        batch: what the model is called with for each z, as many.
        z: shape ``(N, D)``.

    Returns:
        A tensor of shape ``(N, *event_shape)``.

    Raises:
        InputError: as :func:`latent_site` does, where a z is outside the support of the prior, and for a model without
            exactly one observed site, or whose site's distribution does not know its mean.
    """
    parts = zip(batches(batch, MAX_ROWS), z.split(MAX_ROWS), strict=True)
    return torch.cat([_decoded(pair, part, rows) for part, rows in parts])


def _decoded(pair: Pair, batch: Batch, z: Tensor) -> Tensor:
    with pair.opened() as programs:
        call = Call(*programs, (batch.x,), batch.given, 1, pair.plates)
        draws = call.draw()
        weights = call.weigh(draws)
        site = latent_site(weights)
        observed = call.observe(with_values(draws, {site["name"]: z.view_as(site["value"])}))
    _require_inside(observed.nodes[site["name"]])
    return observed_mean(observed, weights.plates).reshape(batch.x.shape)


def latent_site(weights: LogWeights) -> Site:
    """Find the latent site of a model with one latent vector a datum.

    Raises:
        InputError: for a model with several latent sites, or with one that is no vector of continuous numbers.
    """
    names = [*weights.latent_terms]
    if len(names) != 1:
        raise InputError(
            f"the model has {len(names)} latent sites ({', '.join(map(repr, names)) or 'none'}); expected one, whose "
            f"dimensions can be moved: {REMEDY}"
        )
    site: Site = weights.model.nodes[names[0]]
    value, event_dim = site["value"], site["fn"].event_dim
    shape = tuple(value.shape[value.dim() - event_dim :])
    if event_dim != 1 or value.numel() != weights.total.numel() * shape[0]:
        where = "" if event_dim != 1 else ", in a plate of its own"
        raise InputError(
            f"latent site {names[0]!r} has event shape {shape}{where}; expected one vector a datum, of shape (D,): sample "
            f"it with .to_event(1), or {REMEDY}"
        )
    if is_discrete(site):
        raise InputError(f"latent site {names[0]!r} is discrete, so that there is nothing between its values; {REMEDY}")
    return site


def _require_inside(site: Site) -> None:
    support = stated_support(site["fn"])
    if support is not None and not bool(support.check(site["value"]).all()):
        raise InputError(
            f"the path has latents outside the support of the prior {type(site['fn']).__name__}, {support}, where the model "
            f"says nothing; take another path, or {REMEDY}"
        )
