"""Draws of the guide that carry no gradient."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import Independent

from pyrovae.engine.call import Call
from pyrovae.engine.sites import Site, density_sites, with_values
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError


def draw_stopped(call: Call) -> Trace:
    """The guide's draws, through which no gradient flows but that of a ``Delta``, which is no draw."""
    with _StopDrawGradients():
        return call.draw()


class _StopDrawGradients(Messenger):
    def _pyro_post_sample(self, msg: Any) -> None:
        if is_drawn(msg):
            msg["value"] = msg["value"].detach()


def is_drawn(site: Site) -> bool:
    """Whether a site is neither observed nor a ``Delta``."""
    fn = site["fn"]
    while isinstance(fn, Independent | dist.MaskedDistribution):
        fn = fn.base_dist
    return not site["is_observed"] and not isinstance(fn, dist.Delta)


def density_of_draws(weights: LogWeights) -> Tensor:
    r""":math:`\log q` of what the guide draws, without the terms of its ``Delta`` sites, shape ``(K, B)``."""
    drawn = {name for name, site in weights.guide.nodes.items() if site["type"] == "sample" and is_drawn(site)}
    terms = [term for name, term in weights.proposal_terms.items() if name in drawn]
    return sum(terms, torch.zeros_like(weights.log_proposal))


def require_density(objective: object, weights: LogWeights) -> None:
    """Raise an InputError where the guide puts a latent at a point and has no density to fit to draws."""
    for name, site in weights.guide.nodes.items():
        if site["type"] == "sample" and not site["is_observed"] and not is_drawn(site):
            raise InputError(
                f"site {name!r} of the guide is a Delta, a point and no density, so that {type(objective).__name__} cannot "
                "fit it to given draws; take a distribution with a density there, or ELBO or IWAE"
            )


def stop_values(draws: Trace) -> Trace:
    """The same draws, carrying no gradient at all."""
    return with_values(draws, {site["name"]: site["value"].detach() for site in tensor_sites(draws)})


def tensor_sites(draws: Trace) -> list[Site]:
    """The density sites whose values are tensors."""
    return [site for site in density_sites(draws) if isinstance(site["value"], Tensor)]


def detached(value: Any) -> Any:
    """A tensor without its gradient; anything else as it is."""
    return value.detach() if isinstance(value, Tensor) else value
