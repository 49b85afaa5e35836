r"""The part of a guide that is the density of its draws, so that weights estimate :math:`p(x)`.

The mean weight is :math:`p(x)` where the latents are drawn, all of them, and :math:`q` is their density. Of a guide's sites

- those that are drawn count: their density is :math:`q`;
- a ``Delta`` counts where it carries what another site drew (the ``_latent`` site of an ``EasyGuide``, say): its
  ``log_density`` is the logarithm of a Jacobian. A ``Delta`` that stays where it is, is a point estimate, and no proposal;
- observed sites and ``pyro.factor`` do not: they are terms that an objective may have, and no density of a latent.

Whether a ``Delta`` carries anything is read off the draws, and that nothing else is drawn off the number of dimensions.
"""

import math

from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import biject_to

from pyrovae.engine.densities import density_of
from pyrovae.engine.shapes import per_datum
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution, is_discrete, stated_support
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError

PROOF = 16
"""Number of draws per datum that show what a guide is."""
ROUNDING = 0.1
"""Nats by which the density of a draw may differ from that of its copy: flows are inverted with a finite precision."""


def require_proposal(weights: LogWeights, what: str) -> None:
    """Raise an InputError, which names the site, where the guide is no proposal of which ``what`` can be made.

    Args:
        weights: of fresh draws of the guide, two or more a datum.
        what: what is to be estimated, the subject of a sentence.
    """
    weights.require_densities(what)
    guide: list[Site] = [weights.guide.nodes[name] for name in weights.with_proposal_density().proposal_terms]
    model: list[Site] = [weights.model.nodes[name] for name in weights.latent_terms]
    points = [site for site in guide if _is_point(site)]
    for site in points:
        if _stays(site["value"]):
            raise InputError(_no_proposal(what, site, "a Delta, which puts the latent at a point and is no density"))
    drawn = [site for site in guide if not _is_point(site)]
    for discrete in (False, True):
        _require_dimensions(drawn, [site for site in model if not _is_point(site)], points, discrete, what)
    for site in drawn:
        _require_own_density(site, weights, what)


def _require_dimensions(drawn: list[Site], latents: list[Site], points: list[Site], discrete: bool, what: str) -> None:
    """Raise an InputError where not as many numbers are drawn as the latents have, of one kind."""
    proposed, wanted = (sum(_freedom(site) for site in sites if is_discrete(site) == discrete) for sites in (drawn, latents))
    names = {site["name"] for site in latents}
    beside = [site for site in drawn if site["name"] not in names and is_discrete(site) == discrete]
    if proposed > wanted and beside:
        raise InputError(
            f"{what} is not available: site {beside[0]['name']!r} of the guide is auxiliary, no latent site of the "
            "model, so that the mean weight is not p(x); sum it out in the guide, or sample it in the model too, from its "
            "distribution given the latents"
        )
    if proposed < wanted and points:
        raise InputError(_no_proposal(what, points[0], "a Delta, which makes more numbers than were drawn for it"))


def _no_proposal(what: str, site: Site, why: str) -> str:
    return (
        f"{what} is not available: site {site['name']!r} of the guide is {why}, so that the mean weight is not p(x); draw "
        "it from a distribution with a density (AutoNormal in the place of AutoDelta), or make it a parameter of the model"
    )


def _is_point(site: Site) -> bool:
    return isinstance(base_distribution(site["fn"]), Delta)


def _stays(value: Tensor) -> bool:
    """Whether all particles have the same values."""
    return bool((value == value[:1]).all())


def _freedom(site: Site) -> int:
    """How many unconstrained numbers all values of a site have together."""
    shape, support = tuple(site["value"].shape), stated_support(site["fn"])
    if support is None or support.is_discrete:
        return math.prod(shape)
    try:
        return math.prod(biject_to(support).inverse_shape(shape))
    except NotImplementedError:  # no bijection to all real numbers is known
        return math.prod(shape)


def _require_own_density(site: Site, weights: LogWeights, what: str) -> None:
    """Raise an InputError where a distribution states another density for its draws than for the same values."""
    copy: Site = {**site, "value": site["value"].detach().clone()}
    try:
        density, stated = (per_datum(density_of(each), site, len(weights.total), weights.plates) for each in (copy, site))
    except InputError:  # it cannot be asked
        return
    apart = (density - stated).abs() > ROUNDING + 1e-3 * stated.abs()
    if apart.any():
        family = type(base_distribution(site["fn"])).__name__
        raise InputError(
            f"{what} is not available: site {site['name']!r} of the guide ({family}) states "
            f"another density for {int(apart.sum())} of its {apart.numel()} draws than for the same values (by up to "
            f"{(density - stated).abs().max():.3g} nats): they are not draws of that density; take another flow, such as "
            "a neural spline flow"
        )
