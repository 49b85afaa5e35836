r"""Where gradients flow between the guide and its weights, for any pair of programs.

A draw carries the gradient of a weight back to the guide's parameters, :math:`z = z(\varphi, \varepsilon)`, and the density
:math:`q_\varphi(z \mid x)` has another of its own. Estimators of a bound's gradient differ in which of the two they keep:
draws may be stopped, the density's parameters may be stopped while the draws are alive, and the gradient that reaches a
draw may be multiplied by a factor of its particle and datum. And a model may dream: data of its own, with their latents.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import Independent

from pyrovae.compiling.fusion import decompositions
from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.particles import with_values
from pyrovae.engine.weights import Call, LogWeights, Scope, Site, density_sites, per_datum, spread
from pyrovae.errors import InputError
from pyrovae.runtime.parameters import Program, keeping_its_own, owner, seeing, store_as_it_was, unregistered_is_meant


class RunTwiceError(InputError):
    """A program has another density when it is run again at the same draws."""


def derivatives(loss: Tensor, wanted: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The derivatives of a loss; None for what it does not depend on.

    Raises:
        InputError: for a network that is checkpointed by running backward passes within the backward pass.
    """
    try:
        return torch.autograd.grad(loss, wanted, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise InputError(
            "a network is checkpointed with use_reentrant=True, which has gradients by backward() alone; expected "
            "checkpoint(..., use_reentrant=False), whose numbers are the same"
        ) from error


def draw_stopped(call: Call) -> Trace:
    """The guide's draws, through which no gradient flows but that of a ``Delta``, which is no draw."""
    with _DrawsStopped():
        return call.draw()


def density_of_draws(weights: LogWeights) -> Tensor:
    r""":math:`\log q` of what the guide draws, without the terms of its ``Delta`` sites, shape ``(K, B)``."""
    drawn = {name for name, site in weights.guide.nodes.items() if site["type"] == "sample" and _is_drawn(site)}
    terms = [term for name, term in weights.proposal_terms.items() if name in drawn]
    return sum(terms, torch.zeros_like(weights.proposal))


def require_density(objective: object, weights: LogWeights) -> None:
    """Raise an InputError where the guide puts a latent at a point, so that there is no density to fit to draws."""
    for name, site in weights.guide.nodes.items():
        if site["type"] == "sample" and not site["is_observed"] and not _is_drawn(site):
            raise InputError(
                f"site {name!r} of the guide is a Delta, a point and no density, so that {type(objective).__name__} cannot "
                "fit it to given draws; take a distribution with a density there, or ELBO or IWAE"
            )


class _DrawsStopped(Messenger):
    def _pyro_post_sample(self, msg: Any) -> None:
        if _is_drawn(msg):
            msg["value"] = msg["value"].detach()


def _is_drawn(site: Site) -> bool:
    fn = site["fn"]
    while isinstance(fn, Independent | dist.MaskedDistribution):
        fn = fn.base_dist
    return not site["is_observed"] and not isinstance(fn, dist.Delta)


def stopped_density(call: Call, draws: Trace, weights: LogWeights) -> Tensor:
    r""":math:`\log q_{\bar\varphi}(z \mid x)`, the parameters stopped and the draws alive, shape ``(K, B)``.

    The guide runs again at its own draws.

    Raises:
        InputError: where it has another density than when they were made, or cannot be run at given draws.
    """
    fresh = with_values(draws, {site["name"]: site["value"].view_as(site["value"]) for site in _of_tensors(draws)})
    density = call.density(_stopping_guide(call).propose(fresh), weights.plates)  # flows remember what they drew
    require_same("the guide", density, weights.proposal)
    return density


def require_guide_stops(call: Call) -> None:
    """Raise an InputError where a parameter of the guide would escape :func:`stopped_density`, or may not be stopped."""
    call = replace(call, args=tuple(map(_detached, call.args)))
    draws = draw_stopped(call)
    weights = call.weigh(draws)
    if stopped_density(call, stop_values(draws), weights).requires_grad:
        raise InputError(_out_of_sight("guide", 'take estimator="reparameterized"'))
    for name, term in weights.proposal_terms.items():
        if term.requires_grad and not _is_drawn(weights.guide.nodes[name]):
            raise InputError(
                f"site {name!r} of the guide, a Delta or a pyro.factor, has parameters in its density; nothing is drawn "
                'there, so that they must not be stopped, as stl and dreg would; take estimator="reparameterized"'
            )


def stopping_model(call: Call) -> Call:
    """The call with the model's parameters stopped."""
    return replace(call, model=_Stopped(call.model))


def require_model_stops(call: Call) -> None:
    """Raise an InputError where a parameter of the model would escape :func:`stopping_model`."""
    draws = call.draw()
    weights = stopping_model(call).weigh(draws, at=stop_values(draws))
    if weights.joint.requires_grad:
        raise InputError(_out_of_sight("model", "freeze them by requires_grad_(False)"))


def observe_apart(call: Call, draws: Trace) -> tuple[LogWeights, Tensor]:
    r"""The weights with the draws stopped, and :math:`\log p(x, z)` with the draws alive and the model's parameters stopped.

    So the gradients of the model's and of the guide's parameters can be given different factors.

    Raises:
        InputError: where the model, run twice at the same draws, has two densities.
    """
    weights = call.weigh(draws, at=stop_values(draws))
    again = stopping_model(call).observe(with_draws_of_model(draws, weights))
    joint = call.joint(again, draws, weights.plates)
    require_same("the model", joint, weights.joint)
    return weights, joint


def with_draws_of_model(draws: Trace, weights: LogWeights) -> Trace:
    """The draws, and beside them what the model has drawn itself, so that it will not draw anything anew."""
    both = draws.copy()
    for site in density_sites(weights.model):
        if not site["is_observed"] and site["name"] not in draws:
            both.add_node(site["name"], **{**site, "value": _detached(site["value"])})
    return both


def keeping_buffers(call: Call) -> Call:
    """The call with a model that leaves its buffers, the statistics of batch normalisation, say, as they were."""
    return call if isinstance(call.model, Scope) else replace(call, model=_Stopped(call.model, parameters=False))


def _stopping_guide(call: Call) -> Call:
    return replace(call, guide=_Stopped(call.guide))


def _out_of_sight(program: str, remedy: str) -> str:
    return (
        f"the {program} has parameters that are out of sight (a network that it neither calls as a module nor is itself), "
        f"so that they cannot be stopped; make the {program} a module, or {remedy}"
    )


class _Stopped(Scope):
    """A program that leaves its buffers, and Pyro's store, as they were, and whose parameters carry no gradient.

    These are the buffers and parameters of the module that the program is or belongs to, those of the modules that it
    calls, and its ``pyro.param`` statements; with ``parameters=False`` the parameters carry their gradient.
    """

    def __init__(self, program: Program, parameters: bool = True) -> None:
        self.__wrapped__ = program
        self._program = keeping_its_own(program)
        self._parameters = parameters
        self._module = owner(program)
        self._kept: list[tuple[dict[str, Any], str, Tensor]] = []
        self._seen: set[nn.Module] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stopped = _ParametersStopped() if self._parameters else nullcontext()
        with poutine.block(hide_types=["param"]), stopped, unregistered_is_meant(), store_as_it_was():
            return self._program(*args, **kwargs)

    def __enter__(self) -> Self:
        self._seeing = seeing(self._take)
        self._seeing.__enter__()
        if isinstance(self._module, nn.Module):
            self._take(self._module)
        return self

    def __exit__(self, *_: Any) -> None:
        self._seeing.__exit__(None, None, None)
        for tensors, name, value in self._kept:
            tensors[name] = value
        self._kept, self._seen = [], set()

    def _take(self, module: nn.Module) -> None:
        """Put tensors without a gradient in the place of a module's parameters, and copies in that of its buffers."""
        for part in module.modules():
            if part not in self._seen:
                self._seen.add(part)
                self._swap(part._parameters if self._parameters else {}, torch.Tensor.detach)
                self._swap(part._buffers, torch.Tensor.clone)

    def _swap(self, tensors: dict[str, Any], made: Callable[[Tensor], Tensor]) -> None:
        present = [(name, value) for name, value in tensors.items() if value is not None]
        self._kept += [(tensors, name, value) for name, value in present]
        tensors.update({name: made(value) for name, value in present})


class _ParametersStopped(Messenger):
    def _pyro_post_param(self, msg: Any) -> None:
        msg["value"] = msg["value"].detach()


def require_same(program: str, again: Tensor, before: Tensor) -> None:
    """Raise an InputError where a program has answered twice at the same draws; a recording has no numbers to look at."""
    if is_recording() or torch.allclose(again, before, rtol=1e-3, atol=1e-2, equal_nan=True):
        return
    difference = (again - before).abs().nan_to_num().max()
    raise RunTwiceError(
        f"{program}, run again at the same draws, has other densities (they differ by {difference:.3g} nats): it is random "
        "beyond its sample sites (dropout?), or counts the batch (batch normalisation?), and this estimator runs it twice; "
        'call eval() on that layer, or take an estimator that runs it once: "reparameterized"'
    )


@torch.library.custom_op("pyrovae::tap", mutates_args=())
def _tap(z: Tensor, event_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """z, and two zeros a draw; the gradient of z is multiplied by the quotient of theirs."""
    return _tapped(z, event_dim)


def _tapped(z: Tensor, event_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = z.shape[: z.dim() - event_dim]
    return z.clone(), z.new_zeros(shape), z.new_zeros(shape)


def _multiplied(ctx: Any, of_z: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, None]:
    factor = torch.where(denominator == 0.0, 0.0, numerator / denominator)
    return of_z * factor[(..., *[None] * ctx.event_dim)], None


def _remember(ctx: Any, inputs: tuple[Tensor, int], output: Any) -> None:
    ctx.event_dim = inputs[1]


_tap.register_fake(_tapped)
_tap.register_autograd(_multiplied, setup_context=_remember)
decompositions[torch.ops.pyrovae.tap.default] = _tapped


class Tapped:
    r"""Draws whose gradients can be multiplied, once the weights are known, by factors of particle and datum.

    The factors arrive on the way back: each draw comes with two zeros, of which :meth:`scaled` makes a zero whose gradient
    with respect to them is the factor and 1, whatever the loss is multiplied by later on.

    Attributes:
        trace: the guide's trace with these draws in the place of its own.
    """

    def __init__(self, draws: Trace) -> None:
        values: dict[str, Tensor] = {}
        self._zeros: list[tuple[Site, Tensor, Tensor]] = []
        for site in density_sites(prune_subsample_sites(draws)):
            if not site["is_observed"] and site["value"].requires_grad:
                value, *zeros = torch.ops.pyrovae.tap(site["value"], site["fn"].event_dim)
                values[site["name"]] = value
                self._zeros.append((site, *zeros))
        self.trace = with_values(draws, values)

    def scaled(self, factors: Tensor, weights: LogWeights) -> Tensor:
        """Zero for each datum; added to what is differentiated, it multiplies the draws' gradients by ``(K, B)`` factors."""
        terms = torch.zeros_like(factors)
        for site, numerator, denominator in self._zeros:
            terms = terms + per_datum(
                numerator * spread(factors, site, weights.plates) + denominator, site, len(factors), weights.plates
            )
        return terms.sum(0)


def choose(draws: Trace, index: Tensor, weights: LogWeights) -> Trace:
    """The draws of one particle a datum, ``index`` of shape ``(B,)``, as the trace of a single particle."""
    values = {}
    for site in density_sites(prune_subsample_sites(draws)):
        if not site["is_observed"]:
            value = site["value"]
            place = spread(index[None], site, weights.plates)[(..., *[None] * site["fn"].event_dim)]
            values[site["name"]] = value.gather(0, place.expand(1, *value.shape[1:]))
    return with_values(draws, values)


def stop_values(draws: Trace) -> Trace:
    """The same draws, carrying no gradient at all."""
    return with_values(draws, {site["name"]: site["value"].detach() for site in _of_tensors(draws)})


def _of_tensors(draws: Trace) -> list[Site]:
    return [site for site in density_sites(draws) if isinstance(site["value"], Tensor)]


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def dream(call: Call) -> tuple[Call, Trace]:
    """One datum drawn from the model in the place of each of the batch, and the guide's trace at the latents that made it.

    Raises:
        InputError: where the model does not observe just what it is called with, where it adds a ``pyro.factor``, and where
            the guide draws something beside the latents.
    """
    call = replace(call, particles=1)
    with torch.no_grad():
        dreamt = keeping_buffers(call).simulate()
    drawn = {site["name"]: site for site in density_sites(prune_subsample_sites(dreamt))}
    observed = [site for site in drawn.values() if site["infer"].get("was_observed")]
    _require_simple(observed, call.args)
    x = observed[0]["value"].reshape(call.args[0].shape)
    if x.dtype != call.args[0].dtype:
        x = x.to(call.args[0].dtype)
    awake = replace(call, args=(x, *call.args[1:]), guide=_Stopped(call.guide, parameters=False))
    draws = awake.propose(dreamt)
    for site in density_sites(prune_subsample_sites(draws)):
        if site["name"] not in drawn:
            raise InputError(
                f"the guide draws {site['name']!r}, which is no latent site of the model, so that its density at what the "
                "model dreams is not known; take an objective that dreams nothing, such as ELBO, IWAE or VIMCO"
            )
    return awake, draws


def _require_simple(observed: list[Site], args: tuple) -> None:
    names = ", ".join(repr(site["name"]) for site in observed)
    if len(observed) != 1 or isinstance(observed[0]["fn"], dist.Unit):
        raise InputError(
            f"the model observes {names}; to dream data it must observe one site, and no pyro.factor, so that what it draws "
            "there can be handed to the guide"
        )
    x, seen = (args or [None])[0], observed[0]["infer"]["obs"]
    if seen is not x and not _is_same(seen, x):
        raise InputError(
            f"the model observes at {names} something else than what it is called with, so that what it dreams there cannot "
            "be handed to the guide in the place of x; observe x itself: pyro.sample(..., obs=x)"
        )


def _is_same(seen: Any, x: Any) -> bool:
    """Whether two tensors are the same numbers, or of the same shape where there are no numbers to look at."""
    if not isinstance(seen, Tensor) or not isinstance(x, Tensor) or seen.shape != x.shape:
        return False
    return is_recording() or torch.equal(seen, x)
