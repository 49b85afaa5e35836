r"""Paths from a density that can be drawn from to the posterior.

.. math::
    \log f_\beta(z) = (1 - \beta) \log f_0(z) + \beta \log f_1(z), \qquad
    f_0 = p(z) \text{ or } q(z \mid x), \quad f_1 = p(x, z),

for any pair of programs, on latents that are mapped to the real numbers.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, NamedTuple, NoReturn

import pyro
import torch
from pyro.distributions import Delta, ImproperUniform, constraints
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from pyrovae.compiling.fallback import recorded, require_agreement
from pyrovae.compiling.fusion import fuse
from pyrovae.compiling.recording import Recording
from pyrovae.engine.call import Call
from pyrovae.engine.dreams import dream
from pyrovae.engine.pair import Pair
from pyrovae.engine.sites import Site, with_values
from pyrovae.engine.supports import base_distribution, stated_support
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.factorization import FailuresAsNumbers
from pyrovae.evaluation.annealing.unconstrained import Chart, same_support
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.equivalence import GRADIENT, Outcome, difference
from pyrovae.runtime.parameters import same_random_numbers

Start = Literal["prior", "guide"]
NUMERICAL = torch.linalg.LinAlgError, ValueError, ArithmeticError  # pyright: ignore[reportPrivateImportUsage]
"""What programs raise where numbers are out of their reach: a matrix has no Cholesky factor, a scale is not positive."""


class Latents:
    """The latents of a pair as one array of unconstrained numbers, shape ``(K, B, D)``, and back.

    Args:
        weights: of draws that show what the latents look like.
        proposed: the guide's trace, which says where latents are that the model does not.

    Raises:
        InputError: for latents that are discrete, or lie where no map from the real numbers leads.
    """

    def __init__(self, weights: LogWeights, proposed: Trace) -> None:
        self.supports = {name: _support(name, weights.model, proposed) for name in weights.latent_terms}
        self._charts = {name: _chart(name, support, weights) for name, support in self.supports.items()}

    def of(self, trace: Trace) -> Tensor:
        """The values that a trace has at the sites as unconstrained numbers."""
        values: dict[str, Any] = {name: trace.nodes[name]["value"] for name in self._charts}
        return self.pack(values)

    def pack(self, values: dict[str, Tensor]) -> Tensor:
        """Values of the sites as unconstrained numbers."""
        return torch.cat([chart.pack(values[name]) for name, chart in self._charts.items()], -1)

    def unpack(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Values of the sites, and the logarithm of what volumes grow by on the way to them, shape ``(K, B)``."""
        parts = u.split([chart.size for chart in self._charts.values()], -1)
        found = [chart.unpack(part) for chart, part in zip(self._charts.values(), parts, strict=True)]
        values, log_volumes = zip(*found, strict=True)
        return dict(zip(self._charts, values, strict=True)), torch.stack(log_volumes).sum(0)

    def moved(self, other: "Latents") -> list[str]:
        """The latents whose support is another there."""
        return [name for name, support in self.supports.items() if not same_support(support, other.supports[name])]


def _support(name: str, model: Trace, guide: Trace) -> Any:
    """The values that a latent can have: as its prior states them, or, where that does not, its proposal."""
    prior, proposal = model.nodes[name]["fn"], guide.nodes[name]["fn"]
    support = stated_support(prior) or stated_support(proposal)
    if support is None:
        raise InputError(
            f"the distribution of latent site {name!r}, {_family(prior)}, does not state its support, and neither does that "
            "of the guide, so that it is not known where chains may move; give one of them an attribute `support`, such as "
            "pyro.distributions.constraints.real_vector"
        )
    if support.is_discrete:
        raise InputError(
            f"latent site {name!r} is discrete ({_family(prior)}), and Hamiltonian transitions move along gradients; sum it "
            "out in the model, or take log_likelihood"
        )
    return support


def _chart(name: str, support: Any, weights: LogWeights) -> Chart:
    try:
        return Chart(weights.model.nodes[name], support, weights.plates)
    except NotImplementedError as error:
        raise InputError(
            f"latent site {name!r} has the support {support}, which has no bijection to unconstrained space, so that "
            "Hamiltonian transitions cannot move in it; take log_likelihood"
        ) from error


def _family(distribution: Any) -> str:
    return type(base_distribution(distribution)).__name__


class State(NamedTuple):
    """Chains, and the path where they are: ``u`` and the slopes of shape ``(K, B, D)``, the others ``(K, B)``."""

    u: Tensor
    log_f0: Tensor
    log_f1: Tensor
    slope_0: Tensor
    slope_1: Tensor

    def log_f(self, beta: Tensor) -> Tensor:
        r""":math:`\log f_\beta`, for temperatures of shape ``(B,)``."""
        return (1.0 - beta) * self.log_f0 + beta * self.log_f1

    def slope(self, beta: Tensor) -> Tensor:
        """Its gradient."""
        return (1.0 - beta)[..., None] * self.slope_0 + beta[..., None] * self.slope_1

    def where(self, chosen: Tensor, other: "State") -> "State":
        """This state of the chains that are chosen, the other of the others."""
        return State(*(torch.where(chosen[(..., *[None] * (a.dim() - 2))], a, b) for a, b in zip(self, other, strict=True)))

    @property
    def undefined(self) -> Tensor:
        """Whether a density of a chain, or its gradient, is no number, or infinite, shape ``(K, B)``."""
        slopes = torch.stack([self.slope_0, self.slope_1])
        densities = torch.stack([self.log_f0, self.log_f1])
        return densities.isnan().any(0) | densities.isposinf().any(0) | slopes.isnan().any(-1).any(0)

    @property
    def impossible(self) -> Tensor:
        """Whether a density of a chain is zero, shape ``(K, B)``."""
        return torch.stack([self.log_f0, self.log_f1]).isneginf().any(0)


class Path:
    r"""The densities :math:`f_0` and :math:`f_1` of one batch, for a number of chains.

    Args:
        pair: the programs, started.
        batch: the data.
        chains: the number K of chains a datum.
        start: which density :math:`f_0` is.
    """

    def __init__(self, pair: Pair, batch: Batch, chains: int, start: Start) -> None:
        self.batch, self.chains = batch, chains
        self._pair = pair
        self._start: Start = start
        with torch.no_grad(), same_random_numbers(*batch.tensors), self.called(1) as call:
            weights = call.weigh(call.draw()).of_proposal()
            proposed = weights.guide
            if start == "prior":
                weights.require_proper_priors("no chain can begin with one", 'take start="guide"')
            else:
                _require_density(weights)
            with _beginning(start):
                weights, again = (self._weights(call, [*weights.latent_terms]) for _ in range(2))
        weights.require_densities("annealed importance sampling")
        self.latents = Latents(weights, proposed)
        _require_fixed(self.latents.moved(Latents(again, proposed)), weights)
        self._terms = _Terms(pair, weights, self.latents, start == "prior")
        self._fused: Callable[..., Any] | None = None

    def _weights(self, call: Call, latents: list[str]) -> LogWeights:
        """The weights of draws that chains begin with; from the prior, beside stand-ins for the guide's, of density 1."""
        if self._start == "guide":
            return call.weigh(call.draw()).of_proposal()
        trace, draws = call.unguided(), Trace()
        for name in latents:
            draws.add_node(name, **_stand_in(trace.nodes[name]))
        return call.compose(trace, draws)

    def start(self) -> Tensor:
        """Draw the latents from :math:`f_0`; an InputError where the programs fail there."""
        with torch.no_grad(), _beginning(self._start), self.called(self.chains) as call:
            trace = call.draw() if self._start == "guide" else call.unguided()
        return self.latents.of(trace)

    def dream(self) -> tuple["Path", Tensor]:
        """The path of data that the model draws, and the latents that they were drawn from, for each chain."""
        with self.called(1) as call:
            awake, draws = dream(replace(call, guide=self._terms.redraw) if self._start == "prior" else call)
        u = self.latents.of(draws)
        return self.of(replace(self.batch, x=awake.args[0])), u.expand(self.chains, *u.shape[1:]).contiguous()

    @property
    def compiled(self) -> bool:
        """Whether :meth:`at` is recorded and fused."""
        return self._fused is not None

    @contextmanager
    def called(self, particles: int) -> Iterator[Call]:
        """The pair called on the batch."""
        with self._pair.opened() as (model, guide):
            yield Call(model, guide, (self.batch.x,), self.batch.given, particles, self._pair.plates)

    def begin(self, u: Tensor) -> State:
        """The path where chains begin.

        Raises:
            InputError: where the programs fail there, or a density is no number: that is theirs, and no chain's.
        """
        with _beginning(self._start):
            state = self._at(u)
            if bool((state.log_f0.isnan() | state.log_f1.isnan()).any()):
                self._require_numbers(u)
        return state

    @torch.no_grad()
    def _require_numbers(self, u: Tensor) -> NoReturn:
        """Raise what is wrong with densities that are no numbers."""
        self._terms.weights(self.batch.x, u, **self.batch.given)[0].require_numbers()
        raise InputError(f"a density is NaN where chains begin, at draws of the {self._start}; begin elsewhere")

    def at(self, u: Tensor, safe: Tensor) -> State:
        """The path at ``u``, and NaN where the programs fail, which they would not at places that are ``safe``."""
        try:
            return self._at(u)
        except InputError:
            raise
        except NUMERICAL:
            return self._apart(u, safe)
        except RuntimeError:  # what is fused does not tell one kind from another
            if self._fused is None:
                raise
            return self._apart(u, safe)

    def _at(self, u: Tensor) -> State:
        if self._fused is not None:
            return State(u, *self._fused(*self.batch.tensors, u))
        return self._eagerly(u)

    def _eagerly(self, u: Tensor) -> State:
        return State(u, *_with_slopes(lambda u: self._terms(self.batch.x, u, **self.batch.given), u))

    def _apart(self, u: Tensor, safe: Tensor) -> State:
        """The path at ``u``, of ever fewer chains and data together, until those whose programs raise an error are alone."""
        nothing = torch.full_like(u, math.nan)
        whole = State(u, nothing[..., 0], nothing[..., 0], nothing, nothing)
        left = [torch.arange(u.shape[:2].numel(), device=u.device)]
        while left:
            part = left.pop()
            chosen = torch.zeros_like(whole.log_f0, dtype=torch.bool)
            chosen.view(-1)[part] = True
            rows = chosen.any(1)
            try:
                with FailuresAsNumbers():
                    found = self._eagerly(torch.where(chosen[..., None], u, safe)[rows])
            except InputError:
                raise
            except NUMERICAL:
                left += part.tensor_split(2) if len(part) > 1 else []
            else:
                whole = State(*(_with_rows(a, rows, b) for a, b in zip(whole, found, strict=True))).where(chosen, whole)
        return whole

    def of(self, batch: Batch) -> "Path":
        """The same on other data of the same shapes, without recording anew where latents can have the same values."""
        other = Path(self._pair, batch, self.chains, self._start)
        if self.compiled and other.latents.moved(self.latents):
            other.compile()
        else:
            other._fused = self._fused
        return other

    def compile(self) -> None:
        """Record and fuse what :meth:`at` computes; where it cannot be recorded, warn and leave it."""
        with same_random_numbers(self.batch.x):
            u = self.start()
        self._fused = recorded(lambda: self._recorded(u), lambda: self._try(u))

    def _recorded(self, u: Tensor) -> Callable[..., Any]:
        with FailuresAsNumbers():
            recording = Recording(self._slopes, self._terms, [*self.batch.tensors, u])
        own = [tensor.detach() for tensor in recording.tensors]
        fused = fuse(lambda *all: recording(all[: len(own)], *all[len(own) :]), [*own, *self.batch.tensors, u])

        def tried(slopes: Callable[..., Any], *own: Tensor) -> Outcome:
            with same_random_numbers(u):
                return {GRADIENT: dict(enumerate(slopes(*own, *self.batch.tensors, u)))}

        require_agreement(lambda: difference(tried(self._slopes), tried(fused, *own)))
        return lambda *inputs: fused(*own, *inputs)

    def _slopes(self, *inputs: Tensor) -> list[Tensor]:
        batch = self.batch.with_tensors(*inputs[:-1])
        return _with_slopes(lambda u: self._terms(batch.x, u, **batch.given), inputs[-1])

    def _try(self, u: Tensor) -> None:
        """Compute the path eagerly once, for the programs' errors."""
        with same_random_numbers(self.batch.x), _beginning(self._start):
            self._eagerly(u)


def _with_slopes(terms: Callable[[Tensor], tuple[Tensor, Tensor]], u: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_f0, log_f1 = terms(u)
        (slope_0,) = torch.autograd.grad(log_f0.sum(), u, retain_graph=True, allow_unused=True, materialize_grads=True)
        (slope_1,) = torch.autograd.grad(log_f1.sum(), u, allow_unused=True, materialize_grads=True)
    return [log_f0.detach(), log_f1.detach(), slope_0, slope_1]


def _with_rows(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    values = values.clone()
    values[rows] = new.to(values.dtype)
    return values


@contextmanager
def _beginning(start: Start) -> Iterator[None]:
    """Raise an InputError where programs fail meanwhile, at draws that chains begin with."""
    try:
        yield
    except InputError:
        raise
    except NUMERICAL as error:
        other = "guide" if start == "prior" else "prior"
        said = str(error).partition("\n")[0]
        raise InputError(
            f"the programs fail where chains begin, at draws of the {start}: {type(error).__name__}: {said}; correct them "
            f'there, or take start="{other}"'
        ) from error


def _stand_in(site: Site) -> dict[str, Any]:
    fn = site["fn"]
    return {**site, "fn": ImproperUniform(constraints.real, fn.batch_shape, fn.event_shape)}


def _require_density(weights: LogWeights) -> None:
    """Raise an InputError where the guide has no density of the latents alone that chains could begin with."""
    remedy = 'take start="prior", which needs no density of the guide'
    weights.require_latents_alone(f"the guide's density is not that of the latents alone; {remedy}")
    for name in weights.latent_terms:
        site: Site = weights.guide.nodes[name]
        if isinstance(base_distribution(site["fn"]), Delta):
            raise InputError(f"site {name!r} of the guide is a Delta, a point and no density to anneal from; {remedy}")


def _require_fixed(moved: list[str], weights: LogWeights) -> None:
    """Raise an InputError for latents whose support is another from draw to draw."""
    for name in moved:
        raise InputError(
            f"what latent site {name!r} can be ({_family(weights.model.nodes[name]['fn'])}) depends on other latents, and "
            "chains need a support that stays; sample a latent of a fixed support, and shift and scale it by the others: "
            "w ~ Uniform(0, 1), z = low + (high - low) * w"
        )


class _Terms(nn.Module):
    r""":math:`\log f_0` and :math:`\log f_1` of unconstrained latents, each of shape ``(K, B)``."""

    def __init__(self, pair: Pair, weights: LogWeights, latents: Latents, of_prior: bool) -> None:
        super().__init__()
        self.pair = pair
        self._example, self._latents, self._of_prior = weights.guide, latents, of_prior

    def forward(self, x: Tensor, u: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        weights, log_volume = self.weights(x, u, **given)
        first = weights.log_prior if self._of_prior else weights.log_proposal
        return first + log_volume, weights.log_joint + log_volume

    def weights(self, x: Tensor, u: Tensor, **given: Tensor) -> tuple[LogWeights, Tensor]:
        """The weights, and the logarithm of what volumes grow by."""
        values, log_volume = self._latents.unpack(u)
        draws = with_values(self._example, values)
        with self.pair.opened() as (model, guide):
            call = Call(model, guide, (x,), given, len(u), self.pair.plates)
            model_trace = call.observe(draws)
            weights = call.compose(model_trace, draws if self._of_prior else call.propose(draws))
        return weights.of_proposal(), log_volume

    def redraw(self, *_: Any, **__: Any) -> None:
        """A guide that has the latents alone, at given values."""
        for name, site in self._example.nodes.items():
            pyro.sample(name, ImproperUniform(constraints.real, (), site["fn"].event_shape))
