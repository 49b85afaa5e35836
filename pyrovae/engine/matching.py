"""The sites of a guide matched with the latent sites of its model."""

from pyro.poutine.trace_struct import Trace

from pyrovae.engine.sites import Site, density_sites, latent_sites, observed_sites
from pyrovae.engine.supports import is_discrete
from pyrovae.errors import InputError


def require_match(model: Trace, guide: Trace) -> None:
    """Raise an InputError that names a site which model and guide do not share, or which the wrong one observes."""
    if density_sites(model) and not observed_sites(model):
        raise InputError("the model observes nothing; pass obs=x to one of its sites (or are model and guide swapped?)")
    for site in observed_sites(guide):
        if not site["infer"].get("is_auxiliary"):
            raise InputError(
                f"site {site['name']!r} of the guide is observed; a guide draws latents only, and observations are the "
                "model's (or are model and guide swapped?)"
            )
    latents = {site["name"] for site in latent_sites(model, guide)}
    proposed = {site["name"]: site for site in density_sites(guide) if not site["is_observed"]}
    auxiliary = {name for name, site in proposed.items() if site["infer"].get("is_auxiliary")}
    for name in sorted(latents - proposed.keys()):
        raise InputError(
            f"latent site {name!r} of the model is missing in the guide (which has {sorted(proposed) or 'none'}); "
            f"sample it there, pyro.sample({name!r}, ...), or observe it in the model{_or_sum(model.nodes[name])}"
        )
    for name in sorted(proposed.keys() - latents - auxiliary):
        raise InputError(
            f"site {name!r} of the guide is missing in the model (whose latent sites are {sorted(latents) or 'none'}); "
            'sample it in the model, or mark it `infer={"is_auxiliary": True}`'
        )


def _or_sum(site: Site) -> str:
    """What else can be done with a latent that was hidden from an automatic guide, to be enumerated by stock Pyro."""
    return ", or sum it out there: it is discrete, and nothing is enumerated here" if is_discrete(site) else ""
