"""Log densities of single sites, and their scales."""

from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyrovae.engine.plates import Plates, data_frame
from pyrovae.engine.shapes import per_datum
from pyrovae.engine.sites import DENSITY, Site
from pyrovae.errors import InputError

UNSCALED = 1.0
"""Scale of a site that has none of its own, compared by identity."""


def density_of(site: Site) -> Tensor:
    """The log density of a site's value, of the shape of its batch.

    Raises:
        InputError: where the distribution knows only the densities of what it draws itself.
    """
    try:
        return site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    except (NotImplementedError, KeyError) as error:  # torch's and Pyro's ways of having no inverse
        raise InputError(
            f"site {site['name']!r} has no density at values that it was given ({error}); take a flow that can be inverted, "
            'or estimator="reparameterized", which needs none'
        ) from error


def term_of_site(site: Site, particles: int, plates: Plates, residual: float | Tensor) -> Tensor:
    """The log density of one site for each particle and datum."""
    log_prob = site[DENSITY] if DENSITY in site else density_of(site)
    log_prob = scale_and_mask(log_prob, residual, site["mask"])  # pyright: ignore[reportArgumentType]
    return per_datum(log_prob, site, particles, plates)


def data_scale(site: Site, plates: Plates) -> float:
    """Full size over subsample size of the data plate."""
    frame = data_frame(site, plates.data)
    return (frame.full_size or frame.size) / frame.size


def own_scale(site: Site, plates: Plates) -> float | Tensor:
    """The part of a site's scale that is not the data plate's; ``UNSCALED`` itself where there is none."""
    residual = site["scale"] / data_scale(site, plates)
    return residual if isinstance(residual, Tensor) or abs(residual - 1.0) >= 1e-9 else UNSCALED
