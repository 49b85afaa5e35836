"""The KL from the prior, coordinate by coordinate of the latent."""

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.engine.shapes import coordinates
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.elbo import has_formula, same_order


def kl_by_dimension(weights: LogWeights) -> Tensor:
    r"""Compute the KL of each coordinate, shape ``(K, B, D)``, in nats, by a formula of torch if any, else by draws.

    .. math::
        KL(q(z \mid x) \,\|\, p(z)) = \sum_d E_q\left[KL(q(z_d \mid x, z_{<}) \,\|\, p(z_d \mid z_{<}))\right]

    where :math:`z_{<}` are the latent sites before that of :math:`z_d`, if there are any. Within a site the coordinates
    are independent in both programs.

    Raises:
        InputError: where they have not, or draw their sites in different orders.
    """
    if not same_order(weights):
        raise InputError("model and guide draw their latent sites in different orders, so that no site has a KL of its own")
    return torch.cat([_of_site(name, weights) for name in weights.latent_terms], -1)


def _of_site(name: str, weights: LogWeights) -> Tensor:
    q: Site = weights.guide.nodes[name]
    p: Site = weights.model.nodes[name]
    bases = [base_distribution(site["fn"]) for site in (p, q)]
    for program, base in zip(("model", "guide"), bases, strict=True):
        if base.event_shape:
            raise InputError(f"site {name!r} of the {program}, {type(base).__name__}, has no density for each coordinate")
    prior, proposal = bases
    if not has_formula(name, weights):
        raise InputError(f"site {name!r} is masked, so that its coordinates have no KL of their own")
    try:
        kl = kl_divergence(proposal, prior)
    except NotImplementedError:  # torch has no formula for these two families
        kl = proposal.log_prob(q["value"]) - prior.log_prob(q["value"])
    return coordinates(kl, q, weights.plates)
