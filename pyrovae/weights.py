r"""Any Pyro model and guide into one array: the log importance weights.

.. math::
    \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} \mid x_b), \qquad z_{kb} \sim q(z \mid x_b)

for :math:`K` particles and :math:`B` data. The guide, and the model replayed against it, run once each inside one more,
outermost, plate of particles: what depends on the data alone (the encoder) is computed once a datum, and what depends on
the latent (the decoder) once a particle and datum, in one vectorised pass.

The *data plate* is the plate that encloses every site of model and guide; where several do, the one named ``data``. Its
scale (full size over subsample size) is taken out of the weights and handed back; other plates are summed over.
Everything is in nats.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Self

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.parameters import Program, parameter_store, same_random_numbers
from pyrovae.supports import Site, is_discrete, is_masked, require_same_measure, require_support

_PARTICLES = "_particles"
_DENSITY = "_density"


@dataclass(frozen=True)
class Plates:
    """Where the data lie: the data plate's name, and how deep plates nest (the particles' dimension is next)."""

    data: str
    nesting: int


@dataclass(frozen=True)
class LogWeights:
    r"""The log importance weights with their terms, :math:`\log w = \log p(z) + \log p(x \mid z) - \log q(z \mid x)`.

    Attributes:
        latent_terms: :math:`\log p` of each latent site of the model, by name; each of shape ``(K, B)``.
        observed_terms: :math:`\log p` of each observed site (and ``pyro.factor``) of the model.
        proposal_terms: :math:`\log q` of each site of the guide.
        scale: full size over subsample size of the data plate; not contained in the terms.
        rescaled: names of sites with another scale (``poutine.scale``, a subsampled inner plate), which *is* contained.
        plates: where the data lie in the traces.
        model: the model's trace, replayed against the guide's.
        guide: the guide's trace; values have shape ``(K, ..., B, *event_shape)``.
    """

    latent_terms: Mapping[str, Tensor]
    observed_terms: Mapping[str, Tensor]
    proposal_terms: Mapping[str, Tensor]
    scale: float | Tensor
    rescaled: tuple[str, ...]
    plates: Plates
    model: Trace
    guide: Trace

    @property
    def latent(self) -> Tensor:
        r""":math:`\log p(z)`, shape ``(K, B)``."""
        return _sum(self.latent_terms) if self.latent_terms else torch.zeros_like(self.observed)

    @property
    def observed(self) -> Tensor:
        r""":math:`\log p(x \mid z)`, shape ``(K, B)``."""
        return _sum(self.observed_terms) if self.observed_terms else torch.zeros_like(self.latent)

    @property
    def proposal(self) -> Tensor:
        r""":math:`\log q(z \mid x)`, shape ``(K, B)``."""
        return _sum(self.proposal_terms) if self.proposal_terms else torch.zeros_like(self.observed)

    @property
    def joint(self) -> Tensor:
        r""":math:`\log p(x, z)`, shape ``(K, B)``."""
        return self.latent + self.observed

    @property
    def total(self) -> Tensor:
        r""":math:`\log w`, shape ``(K, B)``."""
        return self.joint - self.proposal

    @property
    def discrete_dimensions(self) -> int | None:
        """How many numbers each datum has, where all are discrete and observed, so that :math:`p(x)` is a probability."""
        sites = _observed(self.model)
        if not all(is_discrete(site) and not is_masked(site) for site in sites):
            return None
        return sum(torch.as_tensor(site["value"]).numel() // _data_frame(site, self.plates.data).size for site in sites)

    def require_numbers(self) -> None:
        """Raise an InputError that names the site and the datum where a weight is not a number."""
        for program, name, term in self.terms():
            if term.isnan().any():
                raise InputError(_not_a_number(program, name, term))

    def require_densities(self, what: str) -> None:
        """Raise an InputError where a site's density is scaled, so that ``what`` would not be made of densities."""
        if self.rescaled:
            raise InputError(
                f"site {self.rescaled[0]!r} carries a scale of its own (poutine.scale, or a subsampled plate inside the "
                f"data plate), so that exp(log w) is no ratio of densities; {what} needs unscaled densities: "
                "remove the scale, or use ELBO, which is linear in it"
            )

    def require_latents_alone(self, why: str) -> None:
        """Raise an InputError where the guide draws something beside the latents of the model, so that ``why``."""
        if beside := sorted(set(self.proposal_terms) - set(self.latent_terms)):
            raise InputError(f"site {beside[0]!r} of the guide is no latent site of the model, so that {why}")

    def terms(self) -> Iterator[tuple[str, str, Tensor]]:
        """Every term with its program, ``model`` or ``guide``, and its site's name; the guide's come first, as it runs."""
        yield from (("guide", name, term) for name, term in self.proposal_terms.items())
        yield from (("model", name, term) for name, term in self.latent_terms.items())
        yield from (("model", name, term) for name, term in self.observed_terms.items())


def log_weights(
    model: Program, guide: Program, *args: Any, particles: int = 1, plates: Plates | None = None, **kwargs: Any
) -> LogWeights:
    r"""Draw ``particles`` latents a datum from the guide and weigh them by the model.

    Args:
        model: a Pyro program, module or function; it observes the data within a plate.
        guide: a Pyro program with the same latent sites: the proposal.
        args: what both are called with, usually one batch ``x``.
        particles: the number of draws :math:`K` a datum.
        plates: what :func:`find_plates` found for this pair, to spare one run of it. Where several plates enclose
            everything, and none is named ``data``, say here which of them counts the data.
        kwargs: what both are called with, by name.

    Returns:
        The weights, ``.total`` of shape ``(K, B)``, and their terms; gradients flow as autograd is set.

    Raises:
        InputError: where a site lies outside the data plate or is missing from one of the two programs, where data are
            outside the support of their distribution, and for a weight that is not a number, each of which names the
            site; where several plates could be the data plate, which names them.
    """
    if particles < 1:
        raise InputError(f"particles is {particles}; expected at least 1")
    with parameter_store(model, guide) as (model, guide):
        plates = plates or find_plates(model, guide, *args, **kwargs)
        weights = weigh(model, guide, args, kwargs, particles, plates)
    weights.require_numbers()
    return weights


def weigh(model: Program, guide: Program, args: tuple, kwargs: dict, particles: int, plates: Plates | None) -> LogWeights:
    """:func:`log_weights` in the store that is open, without a look at the numbers: no host synchronisation."""
    call = Call(model, guide, args, kwargs, particles, plates)
    return call.weigh(call.draw())


@dataclass(frozen=True)
class Call:
    """A pair of programs called on one batch, in the store that is open: the two halves of :func:`weigh`.

    Attributes:
        model: the model.
        guide: its proposal.
        args: what both are called with.
        kwargs: what both are called with, by name.
        particles: the number K of draws a datum.
        plates: where the data lie, if that is known.
    """

    model: Program
    guide: Program
    args: tuple
    kwargs: dict
    particles: int
    plates: Plates | None

    @property
    def nesting(self) -> int:
        """How deep plates nest; the dimension of the particles is the next."""
        return 1 if self.plates is None else self.plates.nesting

    def draw(self) -> Trace:
        """The guide's trace: the draws, with sites of subsampled plates."""
        return self._trace(self.guide)

    def weigh(self, draws: Trace, at: Trace | None = None) -> LogWeights:
        """The weights of draws, the model being run ``at`` other tensors of the same values where these are given."""
        return self.compose(self.observe(draws if at is None else at), draws)

    def observe(self, draws: Trace) -> Trace:
        """The model's trace at the draws."""
        return self._trace(self.model, poutine.replay(trace=draws))

    def unguided(self) -> Trace:
        """The model's trace at the data, with latents that it draws itself."""
        return self._trace(self.model)

    def propose(self, draws: Trace) -> Trace:
        """The guide's trace at values that were drawn before."""
        return self._trace(self.guide, poutine.replay(trace=draws))

    def simulate(self) -> Trace:
        """The model's trace with nothing observed; what was to be is under ``obs`` in the ``infer`` of its site."""
        return self._trace(self.model, poutine.uncondition())

    def compose(self, model_trace: Trace, draws: Trace) -> LogWeights:
        """The weights that the traces of model and guide make."""
        model_trace, guide_trace = prune_subsample_sites(model_trace), prune_subsample_sites(draws)
        found = _plates(model_trace, guide_trace, self.plates)
        if found.nesting > self.nesting:
            raise InputError(
                f"plates nest {found.nesting} deep, where {self.nesting} was expected; call find_plates(model, guide, x), "
                "or the objective's module once, before recording the program"
            )
        with pyro.validation_enabled(False):
            return _terms(model_trace, guide_trace, self.particles, self.plates or found)

    def density(self, proposed: Trace, plates: Plates) -> Tensor:
        r""":math:`\log q` of a guide's trace, shape ``(K, B)``."""
        return self._sum(density_sites(prune_subsample_sites(proposed)), plates)

    def joint(self, model_trace: Trace, draws: Trace, plates: Plates) -> Tensor:
        r""":math:`\log p(x, z)` of a model's trace at these draws, shape ``(K, B)``."""
        model_trace = prune_subsample_sites(model_trace)
        return self._sum([*_latents(model_trace, draws), *_observed(model_trace)], plates)

    def _sum(self, sites: list[Site], plates: Plates) -> Tensor:
        with pyro.validation_enabled(False):
            terms = [_term(site, self.particles, plates, _scale_of_its_own(site, plates)) for site in sites]
        return reduce(add, terms, torch.zeros(()))

    def _trace(self, program: Program, handler: Callable[[Program], Program] = lambda program: program) -> Trace:
        """The trace of a program within the plate of particles; of a :class:`Scope`, densities are taken within it."""
        within = pyro.plate(_PARTICLES, self.particles, dim=-1 - self.nesting)(program)
        with pyro.validation_enabled(False), program if isinstance(program, Scope) else nullcontext():
            trace = _trace(handler(within), self.args, self.kwargs)
            for site in density_sites(trace) if isinstance(program, Scope) else ():
                site[_DENSITY] = _density(site)
        return trace


class Scope(ABC):
    """A program that is a context too, in which not only it runs but also the densities of its sites are computed.

    Some distributions, zuko's flows among them, call their networks only then.
    """

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: Any) -> None: ...


def find_plates(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Plates:
    """Run the pair once, with Pyro's validation on, and find its data plate; the random generators stay as they were.

    Raises:
        InputError: for sites outside the data plate, for sites that one program has and the other lacks, for data
            outside the support of their distribution, and for several plates that could be the data plate.
    """
    with torch.no_grad(), same_random_numbers(*args, *kwargs.values()):
        try:
            return _find_plates(model, guide, args, kwargs)
        except InputError:
            raise
        except ValueError:
            _name_the_site(model, guide, args, kwargs)
            raise


def _find_plates(model: Program, guide: Program, args: tuple, kwargs: dict) -> Plates:
    with pyro.validation_enabled(True):
        model_trace, guide_trace = _run(model, guide, args, kwargs)
        require_support(_observed(model_trace))
        plates = _plates(model_trace, guide_trace)
        for site in _latents(model_trace, guide_trace):
            require_same_measure(site, guide_trace.nodes[site["name"]])
        for site in [*density_sites(model_trace), *density_sites(guide_trace)]:
            site["log_prob"] = _density(site)
            check_site_shape(site, plates.nesting)
    return plates


def _name_the_site(model: Program, guide: Program, args: tuple, kwargs: dict) -> None:
    """Raise an InputError where data or weights are to blame for an error of torch's validation, which names no site."""
    with pyro.validation_enabled(False):
        model_trace, guide_trace = _run(model, guide, args, kwargs)
        drawn = [site for site in _latents(model_trace, guide_trace) if not site["value"].isnan().any()]
        require_support([*_observed(model_trace), *drawn])
        _terms(model_trace, guide_trace, 1, _plates(model_trace, guide_trace)).require_numbers()


def _run(model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
    """The traces of model and guide, without particles."""
    guide_trace = _trace(guide, args, kwargs)
    model_trace = _trace(poutine.replay(model, trace=guide_trace), args, kwargs)
    return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)


def _trace(program: Program, args: tuple, kwargs: dict) -> Trace:
    try:
        return poutine.trace(program).get_trace(*args, **kwargs)
    except InputError as error:  # Pyro has added a table of shapes to the message
        raise InputError(str(error).partition("\n")[0]) from error


def density_sites(trace: Trace) -> list[Site]:
    """The sites that carry a density: ``pyro.deterministic`` does not."""
    sites: list[Site] = list(trace.nodes.values())
    return [site for site in sites if site["type"] == "sample" and not site["infer"].get("_deterministic")]


def _latents(model: Trace, guide: Trace) -> list[Site]:
    """The latent sites of the model, less the imputed part of a site with ``obs_mask`` that the guide leaves to it."""
    sites = [site for site in density_sites(model) if not site["is_observed"]]
    return [site for site in sites if site["name"] in guide or not _is_imputed(site["name"], model)]


def _is_imputed(name: str, model: Trace) -> bool:
    base = name.removesuffix("_unobserved")
    return base != name and f"{base}_observed" in model and base in model


def _observed(trace: Trace) -> list[Site]:
    return [site for site in density_sites(trace) if site["is_observed"]]


def _frames(site: Site) -> list[Any]:
    """The vectorised plates around a site, the outermost first, less that of the particles."""
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != _PARTICLES]


def _plates(model: Trace, guide: Trace, told: Plates | None = None) -> Plates:
    """The data plate, found or as told, and how deep plates nest in these traces."""
    _check_match(model, guide)
    sites = [*_latents(model, guide), *_observed(model)]
    if not sites:
        raise InputError("the model has no sample site; expected latent sites and an observed one in a plate over data")
    counts = Counter(frame.name for site in sites for frame in _frames(site))
    if not counts:
        names = ", ".join(repr(site["name"]) for site in sites)
        raise InputError(f'no plate encloses {names}; put them in `with pyro.plate("data", len(x)):`')
    every = [*sites, *density_sites(guide)]
    data = told.data if told else _sole(_enclosing(every)) or counts.most_common(1)[0][0]
    for site in every:
        _data_frame(site, data)
    return Plates(data, _nesting(model, guide))


def _enclosing(sites: list[Site]) -> list[str]:
    """The names of the plates around all of these sites, the outermost first."""
    shared = set.intersection(*({frame.name for frame in _frames(site)} for site in sites))
    return [frame.name for frame in _frames(sites[0]) if frame.name in shared]


def _sole(names: list[str]) -> str | None:
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
    return max(-frame.dim for site in sites for frame in _frames(site))


def _data_frame(site: Site, data: str) -> Any:
    for frame in _frames(site):
        if frame.name == data:
            return frame
    if _is_joint(site):
        raise InputError(
            f"site {site['name']!r} of the guide is joint over the data, outside every plate, and each datum needs weights "
            "of its own; use AutoNormal, which has a site for each latent site of the model, or an amortised guide"
        )
    kind = "observed site" if site["is_observed"] else "latent site"
    raise InputError(
        f"{kind} {site['name']!r} is outside the data plate {data!r}, so that the weights would be joint over the data; "
        f'move it into `with pyro.plate("{data}", ...)`, or make it a parameter'
    )


def _is_joint(site: Site) -> bool:
    """Whether a site is the one from which an automatic guide (AutoDiagonalNormal, say) makes all latent sites at once."""
    automatic = site["name"].startswith("_") and site["name"].endswith("_latent")
    return automatic and bool(site["infer"].get("is_auxiliary")) and not _frames(site)


def _check_match(model: Trace, guide: Trace) -> None:
    if density_sites(model) and not _observed(model):
        raise InputError("the model observes nothing; pass obs=x to one of its sites (or are model and guide swapped?)")
    for site in _observed(guide):
        if not site["infer"].get("is_auxiliary"):
            raise InputError(
                f"site {site['name']!r} of the guide is observed; a guide draws latents only, and observations are the "
                "model's (or are model and guide swapped?)"
            )
    latents = {site["name"] for site in _latents(model, guide)}
    proposed = {site["name"]: site for site in density_sites(guide) if not site["is_observed"]}
    auxiliary = {name for name, site in proposed.items() if site["infer"].get("is_auxiliary")}
    for name in sorted(latents - proposed.keys()):
        raise InputError(
            f"latent site {name!r} of the model is missing in the guide (which has {sorted(proposed) or 'none'}); "
            "sample it in the guide, or observe it in the model"
        )
    for name in sorted(proposed.keys() - latents - auxiliary):
        raise InputError(
            f"site {name!r} of the guide is missing in the model (whose latent sites are {sorted(latents) or 'none'}); "
            'sample it in the model, or mark it `infer={"is_auxiliary": True}`'
        )


def _terms(model: Trace, guide: Trace, particles: int, plates: Plates) -> LogWeights:
    sites = [*_latents(model, guide), *_observed(model), *density_sites(guide)]
    residuals = {id(site): _scale_of_its_own(site, plates) for site in sites}

    def terms(group: list[Site]) -> dict[str, Tensor]:
        return {site["name"]: _term(site, particles, plates, residuals[id(site)]) for site in group}

    return LogWeights(
        latent_terms=terms(_latents(model, guide)),
        observed_terms=terms(_observed(model)),
        proposal_terms=terms(density_sites(guide)),
        scale=_data_scale(sites[0], plates),
        rescaled=tuple(site["name"] for site in sites if residuals[id(site)] is not _ONE),
        plates=plates,
        model=model,
        guide=guide,
    )


_ONE = 1.0


def _data_scale(site: Site, plates: Plates) -> float:
    frame = _data_frame(site, plates.data)
    return (frame.full_size or frame.size) / frame.size


def _scale_of_its_own(site: Site, plates: Plates) -> float | Tensor:
    """The part of a site's scale that is not the data plate's; ``_ONE`` itself where there is none."""
    residual = site["scale"] / _data_scale(site, plates)
    return residual if isinstance(residual, Tensor) or abs(residual - 1.0) >= 1e-9 else _ONE


def _density(site: Site) -> Tensor:
    try:
        return site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    except (NotImplementedError, KeyError) as error:  # torch's and Pyro's ways of having no inverse
        raise InputError(
            f"site {site['name']!r} has no density at values that it was given ({error}); take a flow that can be inverted, "
            'or an estimator that needs none: "reparameterized"'
        ) from error


def _term(site: Site, particles: int, plates: Plates, residual: float | Tensor) -> Tensor:
    """The log density of one site for each particle and datum."""
    log_prob = site[_DENSITY] if _DENSITY in site else _density(site)
    log_prob = scale_and_mask(log_prob, residual, site["mask"])  # pyright: ignore[reportArgumentType]
    return per_datum(log_prob, site, particles, plates)


def per_datum(values: Tensor, site: Site, particles: int, plates: Plates) -> Tensor:
    """The values, of the batch shape of a site, summed over all plates but particles and data: shape ``(K, B)``."""
    data = _data_frame(site, plates.data)
    shape = _batch_shape(site, particles, plates)
    values = values.expand(torch.broadcast_shapes(values.shape, shape))
    inner = [dim for dim in range(-plates.nesting, 0) if dim != data.dim]
    return values.sum(inner) if inner else values


def spread(values: Tensor, site: Site, plates: Plates) -> Tensor:
    """Values of shape ``(K, B)`` along the dimensions that particles and data have at a site."""
    return values.reshape(_batch_shape(site, len(values), plates))


def coordinates(values: Tensor, site: Site, plates: Plates) -> Tensor:
    """Values of the shape of a site, whose inner plates and event become one dimension, shape ``(K, B, D)``."""
    place = data_place(site, plates)
    return values.unsqueeze(-1).movedim((0, place - 1), (0, 1)).flatten(2)


def data_place(site: Site, plates: Plates) -> int:
    """Where, from behind, the data's dimension lies in the values of a site."""
    return _data_frame(site, plates.data).dim - site["fn"].event_dim


def _batch_shape(site: Site, particles: int, plates: Plates) -> list[int]:
    """The shape of a site's batch with inner plates of size 1."""
    data = _data_frame(site, plates.data)
    shape = [1] * (plates.nesting + 1)
    shape[0], shape[data.dim] = particles, data.size
    return shape


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    return reduce(add, terms.values())


def _not_a_number(program: str, name: str, term: Tensor) -> str:
    datum = int(term.isnan().any(0).nonzero()[0])
    return (
        f"the log density of site {name!r} in the {program} is not a number for {int(term.isnan().sum())} of "
        f"{term.numel()} weights (the first at datum {datum}); look at the parameters of its distribution and at its "
        "value there: a smaller learning rate or a lower bound on scales is the usual remedy"
    )
