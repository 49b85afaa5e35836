r"""Paths from a density that can be drawn from to the posterior, and chains that follow them.

.. math::
    \log f_\beta(z) = (1 - \beta) \log f_0(z) + \beta \log f_1(z), \qquad
    f_0 = p(z) \text{ or } q(z \mid x), \quad f_1 = p(x, z),

for any pair of programs, with Hamiltonian transitions that leave :math:`f_\beta` as it is. What they need to be told, step
sizes, scales and the temperatures themselves, is found by pilot chains, so that the chains that count are those of kernels
that were fixed before: their weights stay unbiased.
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
from pyrovae.weights import Call, LogWeights, Site, coordinates, per_datum

Start = Literal["prior", "guide"]
Schedule = Literal["sigmoid", "linear", "adaptive"]

ACCEPTANCE = 0.7
"""The share of accepted proposals that pilot chains aim at."""
JITTER = 0.2
"""Step sizes vary by this part from transition to transition, so that no orbit closes on itself."""
STEEPNESS = 4.0
"""Of the sigmoid schedule."""


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
        if beside := sorted(set(weights.proposal_terms) - set(weights.latent_terms)):
            raise InputError(
                f"site {beside[0]!r} of the guide is no latent site of the model, so that annealing cannot leave it behind; "
                "take log_likelihood, or a guide without it"
            )
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
        frame = next(frame for frame in site["cond_indep_stack"] if frame.name == self._plates.data)
        return frame.dim - site["fn"].event_dim - 1


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


class Kernel(NamedTuple):
    """What a transition is told, fixed before it: step size ``(B,)`` and scales ``(B, D)``."""

    step_size: Tensor
    scale: Tensor


def transition(path: Path, state: State, beta: Tensor, kernel: Kernel, steps: int) -> tuple[State, Tensor]:
    r"""One Hamiltonian transition that leaves :math:`f_\beta` invariant; also whether each chain moved, ``(K, B)``."""
    jitter = 1.0 + JITTER * (2.0 * torch.rand_like(state.log_f0) - 1.0)
    length = (kernel.step_size * jitter)[..., None] * kernel.scale
    momentum = torch.randn_like(state.u)
    before = state.log_f(beta) - momentum.square().sum(-1) / 2.0
    new = state
    momentum = momentum + length / 2.0 * new.slope(beta)
    for step in range(steps):
        new = path.at(new.u + length * momentum)
        momentum = momentum + (length if step + 1 < steps else length / 2.0) * new.slope(beta)
    after = new.log_f(beta) - momentum.square().sum(-1) / 2.0
    accepted = torch.rand_like(before).log() < after - before  # not where a number is none
    return new.where(accepted, state), accepted


class Plan(NamedTuple):
    """What pilot chains found, at ``m`` temperatures on the way.

    Attributes:
        betas: the temperatures to take, shape ``(T + 1, B)``, from 0 to 1.
        places: the temperatures of the pilot chains, shape ``(m,)``.
        log_step_sizes: what step sizes they took there, shape ``(m, B)``.
        log_scales: how wide they lay there, shape ``(m, B, D)``.
    """

    betas: Tensor
    places: Tensor
    log_step_sizes: Tensor
    log_scales: Tensor

    def kernel(self, t: int) -> Kernel:
        """Of the transitions at a temperature."""
        beta = self.betas[t : t + 1]
        tables = self.log_step_sizes, self.log_scales
        return Kernel(*(_interpolated(beta, self.places, table)[0].exp() for table in tables))


def plan(path: Path, temperatures: int, schedule: Schedule, steps: int) -> Plan:
    r"""Follow the path with pilot chains, and find how those that count are to follow it.

    At each of some temperatures step sizes move towards the acceptance that is aimed at, and scales towards the spread of
    the chains. The adaptive schedule has temperatures that cut
    :math:`\int \mathrm{sd}(\log f_1 - \log f_0)\, d\beta` into equal parts, so that each costs as much of the effective
    sample size: the conditional one of a small step is :math:`1 - (\Delta\beta)^2 \mathrm{Var}(\log f_1 - \log f_0)`.
    """
    places = sigmoid_schedule(min(max(temperatures // 5, 50), 500), path.batch.x.device)
    state = path.at(path.start())
    step_size, scale = torch.full_like(state.log_f0[0], 0.5), _spread(state.u, None)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for t, beta in enumerate(places):
        betas = beta.to(state.u.dtype).expand_as(step_size)
        for _ in range(20 if t == 0 else 1):
            state, accepted = transition(path, state, betas, Kernel(step_size, scale), steps)
            step_size = step_size * (0.5 * (accepted.to(step_size.dtype).mean(0) - ACCEPTANCE)).exp()
        scale = _spread(state.u, scale)
        found.append((step_size.log(), scale.log(), (state.log_f1 - state.log_f0).double().var(0, correction=0)))
    log_step_sizes, log_scales, variances = map(torch.stack, zip(*found, strict=True))
    return Plan(_betas(temperatures, schedule, places, variances), places, log_step_sizes, log_scales)


def sigmoid_schedule(temperatures: int, device: torch.device) -> Tensor:
    """Temperatures from 0 to 1 that lie close at both ends, shape ``(temperatures + 1,)``, float64."""
    line = torch.linspace(-STEEPNESS, STEEPNESS, temperatures + 1, dtype=torch.float64, device=device).sigmoid()
    return (line - line[0]) / (line[-1] - line[0])


def _betas(temperatures: int, schedule: Schedule, coarse: Tensor, variances: Tensor) -> Tensor:
    """The schedule of each datum, shape ``(T + 1, B)``, float64."""
    if schedule == "sigmoid":
        return sigmoid_schedule(temperatures, coarse.device)[:, None].expand(-1, variances.shape[1])
    line = torch.linspace(0.0, 1.0, temperatures + 1, dtype=torch.float64, device=coarse.device)[:, None]
    if schedule == "linear":
        return line.expand(-1, variances.shape[1])
    deviation = variances.nan_to_num(posinf=0.0).sqrt()
    pieces = (deviation[1:] + deviation[:-1]) / 2.0 * coarse.diff()[:, None] + 1e-12
    length = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
    return _interpolated(line * length[-1], length, coarse[:, None].expand_as(length))


def _interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Values ``(n, B, ...)``, known at ascending places ``(n,)`` or ``(n, B)``, at others ``(m, B)``: on straight lines."""
    places = (places if places.dim() == 2 else places[:, None].expand(-1, at.shape[1])).contiguous()
    upper = torch.searchsorted(places.T.contiguous(), at.T.contiguous()).T.clamp(1, len(places) - 1)
    low, high = places.gather(0, upper - 1), places.gather(0, upper)
    share = ((at - low) / (high - low)).clamp(0.0, 1.0)
    more = [None] * (values.dim() - 2)
    index = upper[(..., *more)].expand(-1, *values.shape[1:])
    below, above = values.gather(0, index - 1), values.gather(0, index)
    return below + share[(..., *more)].to(values.dtype) * (above - below)


def _spread(u: Tensor, before: Tensor | None) -> Tensor:
    """The standard deviation of chains ``(K, B, D)``, following slowly what it was before; 1 where there is one chain."""
    if len(u) == 1:
        return torch.ones_like(u[0]) if before is None else before
    deviation = u.std(0).clamp(min=1e-6)
    return deviation if before is None else before * (deviation / before).pow(0.2)
