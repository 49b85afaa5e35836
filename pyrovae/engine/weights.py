r"""Any Pyro model and guide into one array: the log importance weights.

.. math::
    \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} \mid x_b), \qquad z_{kb} \sim q(z \mid x_b)

for :math:`K` particles and :math:`B` data: K runs of the guide, and of the model replayed against it, each as its author
wrote it. Where it comes to the same they run at once, inside one more, outermost, plate
(:mod:`pyrovae.engine.particles`): what depends on the data alone (the encoder) is computed once a datum, and what depends
on the latent (the decoder) once a particle and datum.

The *data plate* is the plate that encloses every site of model and guide; where several do, the one named ``data``. Its
scale (full size over subsample size) is taken out of the weights and handed back; other plates are summed over.
Everything is in nats.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from operator import add
from typing import Any, Self

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_site_shape
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyrovae.engine.particles import (
    DENSITY,
    PLATE,
    Way,
    in_turn,
    is_of_each,
    mapped,
    ranked,
    replaying,
    together,
    warn_in_turn,
    with_values,
)
from pyrovae.engine.supports import Site, is_discrete, is_improper, is_masked, require_same_measure, require_support
from pyrovae.errors import InputError
from pyrovae.runtime.arguments import devices
from pyrovae.runtime.equivalence import GRADIENT, difference
from pyrovae.runtime.fixed_randomness import Still
from pyrovae.runtime.module_state import Kept, reached
from pyrovae.runtime.parameters import Program, owner, parameter_store, same_random_numbers
from pyrovae.runtime.perturbation import perturbed
from pyrovae.runtime.precision import computing_in
from pyrovae.runtime.rounding import is_close


@dataclass(frozen=True)
class Plates:
    """Where the data lie, and how particles run.

    Attributes:
        data: the data plate's name.
        nesting: how deep plates nest; the particles' dimension is the next.
        particles: how they run (:mod:`pyrovae.engine.particles`).
        reason: why they do not run together or mapped, if they do not.
        size: how many data the plate held when it was found.
    """

    data: str
    nesting: int
    particles: Way = "together"
    reason: str | None = field(default=None, compare=False)
    size: int | None = field(default=None, compare=False)


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
        return sum(_numbers(site) // _data_frame(site, self.plates.data).size for site in sites)

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

    def of_proposal(self) -> Self:
        r"""The weights, of whose guide only the density of its draws counts, so that they estimate :math:`p(x)`.

        An observed site or a ``pyro.factor`` in the guide is a term that an objective may have, and no density of a latent.
        """
        density = {name: term for name, term in self.proposal_terms.items() if not self.guide.nodes[name]["is_observed"]}
        return replace(self, proposal_terms=density)

    def require_latents_alone(self, why: str) -> None:
        """Raise an InputError where the guide draws something beside the latents of the model, so that ``why``."""
        if beside := sorted(set(self.proposal_terms) - set(self.latent_terms)):
            raise InputError(f"site {beside[0]!r} of the guide is no latent site of the model, so that {why}")

    def require_proper_priors(self, why: str, remedy: str) -> None:
        """Raise an InputError for a latent whose prior is improper, so that ``why``."""
        for name in self.latent_terms:
            if is_improper(self.model.nodes[name]):
                raise InputError(
                    f"the prior of latent site {name!r} is improper, so that it has no draws and {why}; {remedy}"
                )

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
        The weights, ``.total`` of shape ``(K, B)``, and their terms; gradients flow as autograd is set. Observed sites and
        ``pyro.factor`` statements of the guide, which an objective may have as terms, are no density of the draws, and left
        out.

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
    return weights.of_proposal()


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
        kept: what every run of a program is to find in the modules' buffers and attributes, if not what runs before it left.
    """

    model: Program
    guide: Program
    args: tuple
    kwargs: dict
    particles: int
    plates: Plates | None
    kept: Kept | None = None

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
        return self._trace(self.model, draws)

    def unguided(self) -> Trace:
        """The model's trace at the data, with latents that it draws itself."""
        return self._trace(self.model)

    def propose(self, draws: Trace) -> Trace:
        """The guide's trace at values that were drawn before."""
        return self._trace(self.guide, draws)

    def simulate(self) -> Trace:
        """The model's trace with nothing observed; what was to be is under ``obs`` in the ``infer`` of its site."""
        return self._trace(self.model, free=True)

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

    def _trace(self, program: Program, draws: Trace | None = None, free: bool = False) -> Trace:
        """The trace of all particles; of a :class:`Scope`, densities are taken within it."""
        within = isinstance(program, Scope)
        with pyro.validation_enabled(False), program if within else nullcontext():
            trace = self._run(poutine.uncondition(program) if free else program, draws)
            for site in density_sites(trace) if within else ():
                site[DENSITY] = site[DENSITY] if DENSITY in site else density_of(site)
        return trace

    def _run(self, program: Program, draws: Trace | None) -> Trace:
        way = "together" if self.plates is None else self.plates.particles
        if way == "together":
            return self._single(together(program, self.particles, self.nesting), draws)
        single = partial(self._single, program)
        if way == "mapped" and self.particles > 1:
            return mapped(single, draws, self.particles, self.nesting, self._device)
        if self.particles > 1 and self.plates is not None and self.plates.reason:
            warn_in_turn(self.plates.reason, self.particles)
        return in_turn(partial(_with_densities, single), draws, self.particles, self.nesting, self._device)

    @property
    def _device(self) -> torch.device:
        return next(iter(devices(self.args, self.kwargs)), torch.device("cpu"))

    def _single(self, program: Program, draws: Trace | None) -> Trace:
        """The trace of one run, at draws where there are some."""
        if self.kept is not None:
            self.kept.restore()
        return _trace(program if draws is None else replaying(program, draws), self.args, self.kwargs)


def _with_densities(run: Callable[[Trace | None], Trace], draws: Trace | None) -> Trace:
    """The trace of one run, whose sites have their log densities."""
    trace = run(draws)
    for site in density_sites(trace):
        site[DENSITY] = density_of(site)
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
    """Run the pair once, with Pyro's validation on, and find its data plate; and, by a few more runs, how particles run.

    Random generators, parameters and buffers are afterwards as they were.

    Raises:
        InputError: for sites outside the data plate, for sites that one program has and the other lacks, for data
            outside the support of their distribution, and for several plates that could be the data plate.
    """
    with _unnoticed(model, guide, args, kwargs) as modules:
        plates, ranks = _find_plates(model, guide, args, kwargs)
        return _looked(Call(model, guide, args, kwargs, 2, plates), ranks, modules)


def look_again(model: Program, guide: Program, args: tuple, kwargs: dict, plates: Plates) -> Plates:
    """What :func:`find_plates` finds of arguments of another shape, without a look at the numbers in them."""
    alone, plain = same_random_numbers(*args, *kwargs.values()), pyro.validation_enabled(False)
    with torch.no_grad(), alone, plain, computing_in("highest"), reached(model, guide) as modules:
        sites = [site for trace in _pair_of_traces(model, guide, args, kwargs) for site in density_sites(trace)]
        found = replace(plates, size=_data_frame(sites[0], plates.data).size)
        return _looked(Call(model, guide, args, kwargs, 2, found), _ranks(sites), modules)


def check_pair(model: Program, guide: Program, *args: Any, **kwargs: Any) -> Plates:
    """Every error of :func:`find_plates`, by one run of the pair, which does not tell how particles run."""
    with _unnoticed(model, guide, args, kwargs):
        return _find_plates(model, guide, args, kwargs)[0]


@contextmanager
def _unnoticed(model: Program, guide: Program, args: tuple, kwargs: dict) -> Iterator[list[nn.Module]]:
    """Run the pair without a trace left in generators and buffers; the modules that it reaches. Errors name the site."""
    alone = same_random_numbers(*args, *kwargs.values())
    with torch.no_grad(), alone, computing_in("highest"), reached(model, guide) as modules:
        try:
            yield modules
        except InputError:
            raise
        except ValueError:
            _name_the_site(model, guide, args, kwargs)
            raise


def _find_plates(model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Plates, dict[str, int]]:
    """The plates, and how many dimensions the value of each site has in a single run."""
    with pyro.validation_enabled(True):
        model_trace, guide_trace = _pair_of_traces(model, guide, args, kwargs)
        require_support(_observed(model_trace))
        plates = _plates(model_trace, guide_trace)
        for site in _latents(model_trace, guide_trace):
            require_same_measure(site, guide_trace.nodes[site["name"]])
        for site in [*density_sites(model_trace), *density_sites(guide_trace)]:
            site["log_prob"] = density_of(site)
            check_site_shape(site, plates.nesting)
    sites = [*density_sites(model_trace), *density_sites(guide_trace)]
    return replace(plates, size=_data_frame(sites[0], plates.data).size), _ranks(sites)


def _ranks(sites: list[Site]) -> dict[str, int]:
    return {site["name"]: len(site["fn"].batch_shape) + site["fn"].event_dim for site in sites}


def _looked(call: Call, ranks: Mapping[str, int], modules: list[nn.Module]) -> Plates:
    """:func:`_with_way` where no parameter hides an axis, or, where the program does not bear that, with those it has."""
    ways: tuple[Way, ...] = ("together",) if _averages_all_batches(modules) else ("together", "mapped")
    parameters = [*{value: None for module in modules for value in module.parameters() if value.requires_grad}]
    with perturbed(modules):
        try:
            found = _with_way(replace(call, kept=Kept(modules)), ranks, ways, parameters)
        except Exception:  # a program that is given, say, a matrix that is no covariance any more
            found = None
    fails = found is None or (found.particles == "in turn" and OTHER not in (found.reason or ""))
    return _with_way(replace(call, kept=Kept(modules)), ranks, ways, parameters) if found is None or fails else found


def _averages_all_batches(modules: list[nn.Module]) -> bool:
    """Whether batch normalisation in training weighs all batches alike, which counts runs one after another."""
    parts = {part for module in modules for part in module.modules() if isinstance(part, _BatchNorm)}
    return any(part.training and part.track_running_stats and part.momentum is None for part in parts)


OTHER = "has another density than in single runs"
"""Why runs at once are not what single runs are, where they do not fail."""


def _with_way(call: Call, ranks: Mapping[str, int], ways: tuple[Way, ...], parameters: list[nn.Parameter]) -> Plates:
    """The plates with the first way for particles in which their weights are those of single runs at the same draws.

    So must their gradients be, with respect to these parameters.
    """
    plates, reasons = call.plates, []
    assert plates is not None
    for way in ways:
        reason = _disagreement(replace(call, plates=replace(plates, particles=way)), ranks, parameters)
        if reason is None:
            return replace(plates, particles=way)
        reasons.append(f"{way}: {reason}")
    return replace(plates, particles="in turn", reason="; ".join(reasons))


def _disagreement(call: Call, ranks: Mapping[str, int], parameters: list[nn.Parameter]) -> str | None:
    """Why the weights are not those of single runs; ``None`` where they are."""
    assert call.plates is not None
    try:
        draws = call.draw()
        with Still() as still, torch.enable_grad():
            traces = call.observe(draws), call.propose(draws)
            at_once = call.compose(*traces)
        reads = still.reads if call.plates.particles == "together" else 0
        if reads and _may_read_draws(call) and _is_read(call, draws, at_once, reads):
            return "Python reads a number that depends on the draws"
    except Exception as error:  # whatever a program does that was not written for more than one run at a time
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    single = replace(call, plates=replace(call.plates, particles="in turn", reason=None))
    draws = ranked(draws, ranks, call.particles)
    with Still(), torch.enable_grad():
        try:
            guide_trace = single.propose(draws)
        except InputError:  # a flow without an inverse, which knows the density of what it draws itself, of the same noise
            at_once, guide_trace = call.compose(traces[0], call.draw()), single.draw()
        one_by_one = single.compose(single.observe(draws), guide_trace)
        name = _differing(at_once, one_by_one)
        if name and _differing(at_once, one_by_one, _moved(single, draws, one_by_one)):
            return f"site {name!r} {OTHER}"
    return _only_at_once(at_once, single) or _other_gradient(at_once, one_by_one, parameters)


@torch.enable_grad()
def _other_gradient(at_once: LogWeights, one_by_one: LogWeights, parameters: list[nn.Parameter]) -> str | None:
    """What is wrong with the gradient of runs at once, where single runs have one."""

    def gradient(weights: LogWeights) -> dict[str, dict[int, Tensor | None]]:
        found = torch.autograd.grad(weights.total.sum(), parameters, retain_graph=True, allow_unused=True)
        return {GRADIENT: {k: None if value is None else value.to_dense().float() for k, value in enumerate(found)}}

    if not parameters or not one_by_one.total.requires_grad:
        return None
    try:
        expected = gradient(one_by_one)
    except RuntimeError:  # the program's own
        return None
    try:
        found = gradient(at_once)
    except RuntimeError as error:
        return f"its gradient fails: {next(iter(str(error).splitlines()), '')}"
    return None if difference(expected, found) is None else "its gradient is another than in single runs"


def require_uncoupled(call: Call, other: Call, modules: list[nn.Module]) -> None:
    """Raise an InputError where the densities of a datum depend on what else is in its batch.

    Args:
        call: of the pair on a batch.
        other: of the pair on the batch with the second datum in the place of the first.
        modules: the networks that the pair calls.
    """
    plates = call.plates
    assert plates is not None
    with same_random_numbers(*call.args, *call.kwargs.values()), reached(call.model, call.guide):
        draws = call.draw()
    values = {}
    for site in density_sites(prune_subsample_sites(draws)):
        if not site["is_observed"]:
            value, place = torch.as_tensor(site["value"]), data_place(site, plates)
            rest = value.narrow(place, 1, value.shape[place] - 1)
            values[site["name"]] = torch.cat([rest.narrow(place, 0, 1), rest], place)
    found = []
    for each, drawn in ((other, with_values(draws, values)), (call, draws)):  # programs may remember a call
        alone = same_random_numbers(*each.args, *each.kwargs.values())
        with perturbed(modules), Still(), alone, reached(call.model, call.guide):
            try:
                found.append(each.compose(each.observe(drawn), each.propose(drawn)))
            except InputError:  # a flow without an inverse
                return
    others, weights = found
    for (_, name, term), (_, _, changed) in zip(weights.terms(), others.terms(), strict=True):
        if not is_close(term[:, 1:], changed[:, 1:]):
            raise InputError(
                f"the density of site {name!r} of a datum depends on the other data of its batch, so that it is no density "
                "of that datum; does a network attend, or normalise, across the batch? Let it do so within a datum, along "
                "an axis that is counted from the right (batch_first=True for attention)"
            )


def _is_read(call: Call, draws: Trace, weights: LogWeights, reads: int) -> bool:
    """Whether a number that Python reads of a tensor decides a density, and not only whether the program raises an error."""
    for k in range(min(reads, MOST_READS)):
        try:
            with Still(altered=k):
                again = call.compose(call.observe(draws), call.propose(draws))
        except Exception:  # the number guards against what is not there
            continue
        if _differing(again, weights):
            return True
    return reads > MOST_READS


MOST_READS = 16
"""Numbers that are tried one by one; of more, some are taken to matter."""


def _may_read_draws(call: Call) -> bool:
    """Whether a program, mapped, gives Python a number that differs from particle to particle, or cannot be mapped."""
    assert call.plates is not None
    mapping = replace(call, plates=replace(call.plates, particles="mapped"))
    try:
        mapping.observe(mapping.draw())
    except Exception:  # of the number, or of whatever else stands in the way of an answer
        return True
    return False


def _differing(weights: LogWeights, others: LogWeights, moved: Sequence[Tensor] = ()) -> str | None:
    """A site whose densities differ by more than rounding can, or than they are ``moved`` by a change of the last bits."""
    terms = zip(weights.terms(), others.terms(), strict=True)
    for k, ((_, name, term), (_, _, other)) in enumerate(terms):
        if not is_close(term, other, ROUNDING * moved[k] if moved else 0.0):
            return name
    return None


def _moved(single: Call, draws: Trace, weights: LogWeights) -> list[Tensor]:
    """How far each density moves where the last bits of the draws do: far, where it cancels large numbers."""
    values = {site["name"]: site["value"] for site in density_sites(draws) if not site["is_observed"]}
    floats = {name: value for name, value in values.items() if value.is_floating_point()}
    nudged = with_values(draws, {name: value * (1.0 + torch.finfo(value.dtype).eps) for name, value in floats.items()})
    try:
        again = single.compose(single.observe(nudged), single.propose(nudged))
    except InputError:  # a flow without an inverse
        return []
    terms = zip(again.terms(), weights.terms(), strict=True)
    return [(term - other).abs() for (_, _, term), (_, _, other) in terms]


ROUNDING = 100.0
"""How much further rounding within a program may move a density than a change of the last bit of what it is given."""


def _only_at_once(weights: LogWeights, single: Call) -> str | None:
    """A site whose density is not a number, and is one in runs that draw for themselves."""
    if not any(term.isnan().any() for _, _, term in weights.terms()):
        return None
    draws = single.draw()
    fresh = {name: term for _, name, term in single.weigh(draws).terms()}
    lost = (name for _, name, term in weights.terms() if term.isnan().any() and not fresh[name].isnan().any())
    name = next(lost, None)
    return None if name is None else f"the density of site {name!r} is NaN, where single runs give a number"


def _name_the_site(model: Program, guide: Program, args: tuple, kwargs: dict) -> None:
    """Raise an InputError where data or weights are to blame for an error of torch's validation, which names no site."""
    with pyro.validation_enabled(False):
        model_trace, guide_trace = _pair_of_traces(model, guide, args, kwargs)
        drawn = [site for site in _latents(model_trace, guide_trace) if not site["value"].isnan().any()]
        require_support([*_observed(model_trace), *drawn])
        _terms(model_trace, guide_trace, 1, _plates(model_trace, guide_trace)).require_numbers()


def _pair_of_traces(model: Program, guide: Program, args: tuple, kwargs: dict) -> tuple[Trace, Trace]:
    """The traces of a single run of model and guide."""
    guide_trace = _trace(guide, args, kwargs)
    model_trace = _trace(replaying(model, guide_trace), args, kwargs)
    return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)


def _trace(program: Program, args: tuple, kwargs: dict) -> Trace:
    try:
        trace = poutine.trace(program).get_trace(*args, **kwargs)
        return _sized(_of_guide(trace) if isinstance(owner(program), GuideMessenger) else trace)
    except InputError as error:  # Pyro has added a table of shapes to the message
        raise InputError(str(error).partition("\n")[0]) from error


def _of_guide(trace: Trace) -> Trace:
    """The trace of a guide that runs the model, without what the model observes."""
    for name in [name for name, site in trace.nodes.items() if site["type"] == "sample" and site["is_observed"]]:
        trace.remove_node(name)
    return trace


def _sized(trace: Trace) -> Trace:
    """The trace, in which plates without a size have that of the largest site inside.

    Raises:
        InputError: where such a plate encloses a site that has one value for all.
    """
    sites: list[Site] = [site for site in trace.nodes.values() if site["type"] == "sample"]
    open_frames = {frame.name: frame for site in sites for frame in site["cond_indep_stack"] if frame.size == -1}
    for name, frame in open_frames.items():
        inside = [site for site in sites if frame in site["cond_indep_stack"]]
        sizes = [_size_along(site, frame.dim) for site in inside]
        sized = frame._replace(size=max(sizes), full_size=max(sizes))
        for site, size in zip(inside, sizes, strict=True):
            if size < sized.size and not site["is_observed"]:
                raise InputError(
                    f"latent site {site['name']!r} has one value for all {sized.size} data in plate {name!r}, "
                    f'which has no size; give it one, pyro.plate("{name}", len(x)), or draw a value for each datum'
                )
            site["cond_indep_stack"] = tuple(sized if each == frame else each for each in site["cond_indep_stack"])
    return trace


def _size_along(site: Site, dim: int) -> int:
    """How large the batch of a site is along a dimension, 1 where it has none there."""
    event_dim = site["fn"].event_dim
    shapes = site["fn"].batch_shape, torch.as_tensor(site["value"]).shape
    batch_shapes = shapes[0], shapes[1][: max(0, len(shapes[1]) - event_dim)]
    return max(shape[dim] if len(shape) >= -dim else 1 for shape in batch_shapes)


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
    return [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.name != PLATE]


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
    """Whether an automatic guide makes latents of all data from this site (AutoDiagonalNormal, say, or AutoStructured)."""
    name = site["name"]
    automatic = (name.startswith("_") and name.endswith("_latent")) or name.endswith("_aux")
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
            f"sample it in the guide, or observe it in the model{_or_sum(model.nodes[name])}"
        )
    for name in sorted(proposed.keys() - latents - auxiliary):
        raise InputError(
            f"site {name!r} of the guide is missing in the model (whose latent sites are {sorted(latents) or 'none'}); "
            'sample it in the model, or mark it `infer={"is_auxiliary": True}`'
        )


def _or_sum(site: Site) -> str:
    """What else can be done with a latent that was hidden from an automatic guide, to be enumerated by stock Pyro."""
    return ", or sum it out there: it is discrete, and nothing is enumerated here" if is_discrete(site) else ""


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
            'or an estimator that needs none: "reparameterized"'
        ) from error


def _term(site: Site, particles: int, plates: Plates, residual: float | Tensor) -> Tensor:
    """The log density of one site for each particle and datum."""
    log_prob = site[DENSITY] if DENSITY in site else density_of(site)
    log_prob = scale_and_mask(log_prob, residual, site["mask"])  # pyright: ignore[reportArgumentType]
    return per_datum(log_prob, site, particles, plates)


def per_datum(values: Tensor, site: Site, particles: int, plates: Plates) -> Tensor:
    """The values, of the batch shape of a site, summed over all plates but particles and data: shape ``(K, B)``.

    Raises:
        InputError: for values of several runs where there is one, which a program was handed by ``poutine.replay``, say.
    """
    data = _data_frame(site, plates.data)
    shape = _batch_shape(site, particles, plates)
    if values.dim() > len(shape):
        raise InputError(
            f"site {site['name']!r} has densities of shape {tuple(values.shape)}; expected {tuple(shape)}, particles and "
            "plates: particles are drawn here, so hand the program the values of one run, or none"
        )
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


def _numbers(site: Site) -> int:
    """How many numbers a site has in one run."""
    value = torch.as_tensor(site["value"])
    return value.numel() // (len(value) if is_of_each(site) else 1)


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
