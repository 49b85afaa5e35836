r"""Paths from a density that can be drawn from to the posterior.

.. math::
    \log f_\beta(z) = (1 - \beta) \log f_0(z) + \beta \log f_1(z), \qquad
    f_0 = p(z) \text{ or } q(z \mid x), \quad f_1 = p(x, z),

for any pair of programs, on latents that are mapped to the real numbers.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from pyro.distributions import Delta
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn
from torch.distributions import biject_to

from pyrovae.batches import Batch
from pyrovae.errors import InputError
from pyrovae.gradients import with_values
from pyrovae.pair import Pair
from pyrovae.parameters import same_random_numbers
from pyrovae.recording import NotCompiledWarning, NotRecordedError, Recording, fuse
from pyrovae.supports import base_distribution
from pyrovae.weights import Call, LogWeights, Site, coordinates, data_place, per_datum

Start = Literal["prior", "guide"]


class Latents:
    """The latents of a pair as one array of unconstrained numbers, shape ``(K, B, D)``, and back.

    Args:
        weights: of draws that show what the latents look like.

    Raises:
        InputError: for latents that are discrete, lie where no map from the real numbers leads, or have no density.
    """

    def __init__(self, weights: LogWeights) -> None:
        self._plates = weights.plates
        self._sites: dict[str, Site] = {name: weights.guide.nodes[name] for name in weights.latent_terms}
        weights.require_latents_alone("annealing cannot leave it behind; take log_likelihood, or a guide without it")
        self._transforms = {name: _transform(name, weights) for name in self._sites}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.of(weights.guide)

    def of(self, trace: Trace) -> Tensor:
        """The values that a trace has at the sites as unconstrained numbers."""
        values: dict[str, Any] = {name: trace.nodes[name]["value"] for name in self._sites}
        return self.pack(values)

    def pack(self, values: dict[str, Tensor]) -> Tensor:
        """Values of the sites as unconstrained numbers."""
        packed = []
        for name, site in self._sites.items():
            free = self._transforms[name].inv(values[name])
            self._shapes[name] = tuple(_data_first(free, self._place(site)).shape[2:])
            packed.append(coordinates(free, site, self._plates))
        return torch.cat(packed, -1)

    def unpack(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Values of the sites, and the logarithm of what volumes grow by on the way to them, shape ``(K, B)``."""
        values, log_volume = {}, u.new_zeros(u.shape[:2])
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        for (name, site), part in zip(self._sites.items(), u.split(sizes, -1), strict=True):
            shaped = part.reshape(*u.shape[:2], *self._shapes[name])
            free = shaped.movedim((0, 1), (0, self._place(site))).squeeze(-1)
            values[name] = self._transforms[name](free)
            volume = self._transforms[name].log_abs_det_jacobian(free, values[name])
            log_volume = log_volume + per_datum(volume, site, len(u), self._plates)
        return values, log_volume

    def _place(self, site: Site) -> int:
        """Where the data's dimension lies in a value with one more dimension behind."""
        return data_place(site, self._plates) - 1


def _data_first(value: Tensor, place: int) -> Tensor:
    return value.unsqueeze(-1).movedim((0, place), (0, 1))


def _transform(name: str, weights: LogWeights) -> Any:
    """From unconstrained numbers to the values of a site."""
    site: Site = weights.model.nodes[name]
    proposed: Site = weights.guide.nodes[name]
    if isinstance(base_distribution(proposed["fn"]), Delta):
        raise InputError(f"site {name!r} of the guide is a Delta, a point and no density to anneal from")
    support = site["fn"].support
    if support.is_discrete:
        raise InputError(
            f"latent site {name!r} is discrete ({type(base_distribution(site['fn'])).__name__}), and Hamiltonian "
            "transitions move along gradients; sum it out in the model, or take log_likelihood"
        )
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise InputError(
            f"latent site {name!r} has the support {support}, to which no map leads from all real numbers, so that "
            "Hamiltonian transitions cannot move in it; take log_likelihood"
        ) from error


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
        self._pair, self._start = pair, start
        with torch.no_grad():
            weights = pair.weigh(chains, batch.x, **batch.given)
        weights.require_numbers()
        weights.require_densities("annealed importance sampling")
        self.latents = Latents(weights)
        self._terms = _Terms(pair, weights, self.latents, start == "prior")
        self._fused: Callable[..., Any] | None = None

    def start(self) -> Tensor:
        """Draw the latents from :math:`f_0`."""
        with torch.no_grad(), self.called(self.chains) as call:
            trace = call.draw() if self._start == "guide" else call.unguided()
        return self.latents.of(trace)

    @property
    def compiled(self) -> bool:
        """Whether :meth:`at` is recorded and fused."""
        return self._fused is not None

    @contextmanager
    def called(self, particles: int) -> Iterator[Call]:
        """The pair called on the batch."""
        with self._pair.opened() as (model, guide):
            yield Call(model, guide, (self.batch.x,), self.batch.given, particles, self._pair.plates)

    def at(self, u: Tensor) -> State:
        """The path at ``u``."""
        if self._fused is not None:
            return State(u, *self._fused(*self.batch.tensors, u))
        return State(u, *_with_slopes(lambda u: self._terms(self.batch.x, u, **self.batch.given), u))

    def of(self, batch: Batch) -> "Path":
        """The same on other data of the same shapes, without recording anew."""
        other = object.__new__(Path)
        other.__dict__.update(self.__dict__, batch=batch)
        return other

    def compile(self) -> None:
        """Record and fuse what :meth:`at` computes; where it cannot be recorded, warn and leave it."""
        with same_random_numbers(self.batch.x):
            u = self.start()
        try:
            recording = Recording(self._terms, (self.batch.x, u), self.batch.given)
            tensors = [tensor.detach() for tensor in recording.tensors]
            own = len(tensors)

            def slopes(*everything: Tensor) -> list[Tensor]:
                given = self.batch.with_tensors(*everything[own:-1])
                return _with_slopes(lambda u: recording(everything[:own], given.x, u, **given.given), everything[-1])

            fused = fuse(slopes, [*tensors, *self.batch.tensors, u])
        except NotRecordedError as error:
            warnings.warn(f"the programs run eagerly: they cannot be recorded: {error}", NotCompiledWarning, stacklevel=3)
            return
        self._fused = lambda *inputs: fused(*tensors, *inputs)


def _with_slopes(terms: Callable[[Tensor], tuple[Tensor, Tensor]], u: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        log_f0, log_f1 = terms(u)
        (slope_0,) = torch.autograd.grad(log_f0.sum(), u, retain_graph=True, allow_unused=True, materialize_grads=True)
        (slope_1,) = torch.autograd.grad(log_f1.sum(), u, allow_unused=True, materialize_grads=True)
    return [log_f0.detach(), log_f1.detach(), slope_0, slope_1]


class _Terms(nn.Module):
    r""":math:`\log f_0` and :math:`\log f_1` of unconstrained latents, each of shape ``(K, B)``."""

    def __init__(self, pair: Pair, weights: LogWeights, latents: Latents, of_prior: bool) -> None:
        super().__init__()
        self.pair = pair
        self._example, self._latents, self._of_prior = weights.guide, latents, of_prior

    def forward(self, x: Tensor, u: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        values, log_volume = self._latents.unpack(u)
        draws = with_values(self._example, values)
        with self.pair.opened() as (model, guide):
            call = Call(model, guide, (x,), given, len(u), self.pair.plates)
            model_trace = call.observe(draws)
            weights = call.compose(model_trace, draws if self._of_prior else call.propose(draws))
        first = weights.latent if self._of_prior else weights.proposal
        return first + log_volume, weights.joint + log_volume
