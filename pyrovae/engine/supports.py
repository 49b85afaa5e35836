"""Supports of the sites of a trace, and the measures that their densities refer to."""

from typing import Any

import torch
from pyro.distributions import Delta, ImproperUniform, MaskedDistribution
from pyro.distributions.constraints import sphere
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from pyrovae.engine.sites import Site
from pyrovae.errors import InputError
from pyrovae.internals.pyro_internals import mask_of


def base_distribution(distribution: Distribution) -> Distribution:
    """The distribution of the scalars, or of the vectors, that an independent one is made of."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def require_support(sites: list[Site]) -> None:
    """Raise an InputError where a site of the model has a value that its distribution cannot have."""
    for site in sites:
        support = stated_support(site["fn"])
        if support is None or isinstance(site["value"], tuple) or site["infer"].get("is_auxiliary"):
            continue
        value = torch.as_tensor(site["value"])
        value = value.expand(torch.broadcast_shapes(value.shape, site["fn"].shape()))
        inside = support.check(value)
        if not inside.all():
            raise InputError(_outside(site, value, support, inside))
        require_type_of_numbers(site)


def require_type_of_numbers(site: Site) -> None:
    """Raise an InputError where a density fails, or comes out wrong, because of the type of the numbers in a value.

    Bernoulli has none of bools and integers, though 0 and 1 they are; bytes wrap around where they are subtracted.
    """
    value = site["value"]
    if not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex():
        return
    expected, found = _tried(site, value.to(torch.get_default_dtype())), _tried(site, value)
    if isinstance(expected, Exception):  # it is not the type that is to blame
        return
    if isinstance(found, Exception):
        raise InputError(_wrong_type(site, "cannot be computed")) from found
    if not torch.allclose(found, expected.to(found), rtol=1e-3, atol=1e-3, equal_nan=True):
        raise InputError(_wrong_type(site, "comes out wrong, since they wrap around"))


def _tried(site: Site, value: Tensor) -> Tensor | Exception:
    """The log density of a site at a value, or what went wrong."""
    try:
        return site["fn"].log_prob(value, *site["args"], **site["kwargs"])
    except Exception as error:
        return error


def _wrong_type(site: Site, found: str) -> str:
    kind, remedy = "latent", "they are the guide's draws: draw them from a distribution of the model's family"
    if site["is_observed"]:
        kind, remedy = "observed", f"hand them over as obs=x.to({torch.get_default_dtype()})"
    return (
        f"{kind} site {site['name']!r} has values of {site['value'].dtype}, with which the density of {_family(site)} "
        f"{found}; {remedy}"
    )


def is_masked(site: Site) -> bool:
    """Whether a part of a site's density may be left out."""
    return site["mask"] is not None or isinstance(base_distribution(site["fn"]), MaskedDistribution)


def is_improper(site: Site) -> bool:
    """Whether a site has no draws, or has some, of which no density is counted."""
    fn: Any = site["fn"]
    masks = [site["mask"]]
    while isinstance(fn, Independent | MaskedDistribution):
        masks += [mask_of(fn)] if isinstance(fn, MaskedDistribution) else []
        fn = fn.base_dist
    hidden = any(mask is False or (isinstance(mask, Tensor) and not mask.any()) for mask in masks)
    return hidden or isinstance(fn, ImproperUniform)


def is_discrete(site: Site) -> bool:
    """Whether a site's values can be counted."""
    support = stated_support(site["fn"])
    return support is not None and support.is_discrete


def stated_support(distribution: Any) -> constraints.Constraint | None:
    """The values that a distribution can have, as it says, or as its parts say of a flow; ``None`` where neither does."""
    try:
        return distribution.support
    except (NotImplementedError, AttributeError):
        return _of_parts(distribution)


def _of_parts(distribution: Any) -> constraints.Constraint | None:
    """The values of a flow between real numbers, which states none itself."""
    if hasattr(distribution, "dist"):  # a distribution of zuko that was made one of Pyro
        return stated_support(distribution.dist)
    if not hasattr(distribution, "base"):
        return None
    base = stated_support(distribution.base)
    domain = getattr(getattr(distribution, "transform", None), "domain", base)
    return domain if _is_real(base) and _is_real(domain) else None


def _is_real(support: Any) -> bool:
    return within_independent(support)[0] is constraints.real


def within_independent(support: Any) -> tuple[Any, int]:
    """What a support is made of, and over how many dimensions it is repeated."""
    repeated = 0
    while isinstance(support, constraints.independent):
        repeated, support = repeated + support.reinterpreted_batch_ndims, support.base_constraint
    return support, repeated


def require_same_measure(site: Site, proposed: Site) -> None:
    """Raise an InputError where a latent's densities in model and guide are not per the same unit, and have no ratio."""
    if isinstance(base_distribution(proposed["fn"]), Delta):  # a point is in every space
        return
    p, q = _measure(site), _measure(proposed)
    if p and q and p != q:
        raise InputError(
            f"latent site {site['name']!r} has a density per {p} in the model ({_family(site)}) and per {q} in the "
            f"guide ({_family(proposed)}), so that the two have no ratio; take a prior and a guide over the same space"
        )
    require_type_of_numbers(site)


def _measure(site: Site) -> str | None:
    """What a site's density is per; ``None`` where its distribution does not say."""
    base = stated_support(site["fn"])
    if base is None:
        return None
    if base.is_discrete:
        return "value"
    while hasattr(base, "base_constraint"):
        base = base.base_constraint  # pyright: ignore[reportAttributeAccessIssue]
    return {constraints.simplex: "area of the simplex", sphere: "area of the sphere"}.get(base, "volume")


def _family(site: Site) -> str:
    base = base_distribution(site["fn"])
    while isinstance(base, MaskedDistribution):
        base = base_distribution(base.base_dist)
    return type(base).__name__


def _outside(site: Site, value: Tensor, support: constraints.Constraint, inside: Tensor) -> str:
    """Which values of a site its distribution cannot have; ``inside`` may lack the event's dimensions."""
    base, _ = within_independent(support)
    if base.event_dim == 0:
        inside = base.check(value)
    position = (~inside).nonzero()[0].tolist()
    name = _family(site)
    remedy = (
        'binarise the data (binarize="dynamic"), or take a likelihood over grey values'
        if base is constraints.boolean
        else "take a likelihood whose support holds the data, or rescale them"
    )
    if not site["is_observed"]:
        remedy = "they are the guide's draws: take a prior and a guide over the same space"
    elif site["mask"] is not None:
        remedy = "a mask does not excuse them: fill what it hides with any value of the support"
    first = value[tuple(position)].flatten()[0].item()
    kind = "observed" if site["is_observed"] else "latent"
    return (
        f"{kind} site {site['name']!r} has {int((~inside).sum())} of {inside.numel()} values outside the support of "
        f"{name}, {_describe(base)} (the first is {first:.6g}, at {position}); {remedy}"
    )


def _describe(support: constraints.Constraint) -> str:
    if support is constraints.boolean:
        return "{0, 1}"
    tensors = {name: value for name, value in vars(support).items() if isinstance(value, Tensor)}
    ranges = ", ".join(f"{name}={_range(value)}" for name, value in tensors.items())
    return f"{type(support).__name__.lstrip('_')}({ranges})" if tensors else str(support).removesuffix("()")


def _range(values: Tensor) -> str:
    low, high = values.min().item(), values.max().item()
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
