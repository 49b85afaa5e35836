"""The data plate: the plate that encloses every site of model and guide; where several do, the one named ``data``."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pyro.poutine.trace_struct import Trace

from pyrovae.engine.matching import require_match
from pyrovae.engine.particles import RunMode
from pyrovae.engine.sites import Site, density_sites, latent_sites, observed_sites, plate_frames
from pyrovae.errors import InputError


@dataclass(frozen=True)
class Plates:
    """The data plate of a pair of programs, and how its particles run.

    Attributes:
        data: the data plate's name.
        nesting: how deep plates nest; the particles' dimension is the next.
        particles: how they run (:mod:`pyrovae.engine.particles`).
        reason: why they do not run together or mapped, if they do not.
        size: how many data the plate held when it was found.
    """

    data: str
    nesting: int
    particles: RunMode = "together"
    reason: str | None = field(default=None, compare=False)
    size: int | None = field(default=None, compare=False)


def locate_plates(model: Trace, guide: Trace, told: Plates | None = None) -> Plates:
    """Find the data plate in the traces of a pair, or take the one that is given, and how deep plates nest.

    Raises:
        InputError: for sites outside the data plate, and where sites of model and guide do not match.
    """
    require_match(model, guide)
    sites = [*latent_sites(model, guide), *observed_sites(model)]
    if not sites:
        raise InputError("the model has no sample site; expected latent sites and an observed one in a plate over data")
    counts = Counter(frame.name for site in sites for frame in plate_frames(site))
    if not counts:
        names = ", ".join(repr(site["name"]) for site in sites)
        raise InputError(f'no plate encloses {names}; put them in `with pyro.plate("data", len(x)):`')
    every = [*sites, *density_sites(guide)]
    data = told.data if told else _the_one_over_data(_enclosing(every)) or counts.most_common(1)[0][0]
    for site in every:
        data_frame(site, data)
    return Plates(data, _nesting(model, guide))


def _enclosing(sites: list[Site]) -> list[str]:
    """The names of the plates around all of these sites, the outermost first."""
    shared = set.intersection(*({frame.name for frame in plate_frames(site)} for site in sites))
    return [frame.name for frame in plate_frames(sites[0]) if frame.name in shared]


def _the_one_over_data(names: list[str]) -> str | None:
    """The one of the plates around everything that counts the data; ``None`` where there is no such plate."""
    if len(names) < 2 or "data" in names:
        return "data" if "data" in names else next(iter(names), None)
    raise InputError(
        f"plates {' and '.join(map(repr, names))} each enclose every site, so that any of them could count the data; "
        'expected one: name it "data", pass plates=Plates(data=..., nesting=...) to log_weights, or move sites so that only '
        "the data plate encloses all of them"
    )


def _nesting(model: Trace, guide: Trace) -> int:
    """How deep the plates around any site go, ``pyro.deterministic`` among them."""
    sites = [site for trace in (model, guide) for site in trace.nodes.values() if site["type"] == "sample"]
    return max(-frame.dim for site in sites for frame in plate_frames(site))


def data_frame(site: Site, data: str) -> Any:
    """Pyro's frame of the data plate around a site.

    Raises:
        InputError: for a site outside the data plate.
    """
    for frame in plate_frames(site):
        if frame.name == data:
            return frame
    if _is_joint(site):
        raise InputError(
            f"site {site['name']!r} of the guide is joint over the data, outside every plate, and each datum needs weights "
            "of its own; use AutoNormal, which has a site for each latent site of the model, or an amortized guide"
        )
    kind = "observed site" if site["is_observed"] else "latent site"
    raise InputError(
        f"{kind} {site['name']!r} is outside the data plate {data!r}, so that the weights would be joint over the data; "
        f'move it into `with pyro.plate("{data}", ...)`, or make it a parameter'
    )


def _is_joint(site: Site) -> bool:
    """Whether an automatic guide makes latents of all data from this site (AutoDiagonalNormal, say, or AutoStructured)."""
    name = site["name"]
    automatic = (name.startswith("_") and name.endswith("_latent")) or name.endswith("_aux")
    return automatic and bool(site["infer"].get("is_auxiliary")) and not plate_frames(site)
