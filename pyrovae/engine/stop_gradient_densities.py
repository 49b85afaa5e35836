r"""Densities of programs that run again at the same draws, with their parameters stopped.

A draw carries the gradient of a weight back to the guide's parameters, :math:`z = z(\varphi, \varepsilon)`, and the density
:math:`q_\varphi(z \mid x)` has another of its own. Estimators of a bound's gradient differ in which of the two they keep:
draws may be stopped, the density's parameters may be stopped while the draws are alive, and the gradient that reaches a
draw may be multiplied by a factor of its particle and datum (:mod:`pyrovae.engine.gradient_factors`).
"""

from dataclasses import replace

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.call import Call
from pyrovae.engine.sites import density_sites, with_values
from pyrovae.engine.stop_gradient_draws import detached, draw_stopped, is_drawn, stop_values, tensor_sites
from pyrovae.engine.stop_gradient_programs import stopping_guide, stopping_model
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError


class RunTwiceError(InputError):
    """A program has another density when it is run again at the same draws."""


def stopped_density(call: Call, draws: Trace, weights: LogWeights) -> Tensor:
    r""":math:`\log q_{\bar\varphi}(z \mid x)`, the parameters stopped and the draws alive, shape ``(K, B)``.

    The guide runs again at its own draws.

    Raises:
        InputError: where it has another density than when they were made, or cannot be run at given draws.
    """
    fresh = with_values(draws, {site["name"]: site["value"].view_as(site["value"]) for site in tensor_sites(draws)})
    density = call.density(stopping_guide(call).propose(fresh), weights.plates)  # flows remember what they drew
    require_same("the guide", density, weights.log_proposal)
    return density


def require_guide_stops(call: Call) -> None:
    """Raise an InputError where a parameter of the guide would escape :func:`stopped_density`, or may not be stopped."""
    call = replace(call, args=tuple(map(detached, call.args)))
    draws = draw_stopped(call)
    weights = call.weigh(draws)
    if stopped_density(call, stop_values(draws), weights).requires_grad:
        raise InputError(_out_of_sight("guide", 'take estimator="reparameterized"'))
    for name, term in weights.proposal_terms.items():
        if term.requires_grad and not is_drawn(weights.guide.nodes[name]):
            raise InputError(
                f"site {name!r} of the guide, a Delta or a pyro.factor, has parameters in its density; nothing is drawn "
                'there, so that they must not be stopped, as stl and dreg would; take estimator="reparameterized"'
            )


def require_model_stops(call: Call) -> None:
    """Raise an InputError where a parameter of the model would escape :func:`stopping_model`."""
    draws = call.draw()
    weights = stopping_model(call).weigh(draws, at=stop_values(draws))
    if weights.log_joint.requires_grad:
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
    require_same("the model", joint, weights.log_joint)
    return weights, joint


def with_draws_of_model(draws: Trace, weights: LogWeights) -> Trace:
    """Add to the draws what the model has drawn itself, so that it will not draw anything anew."""
    both = draws.copy()
    for site in density_sites(weights.model):
        if not site["is_observed"] and site["name"] not in draws:
            both.add_node(site["name"], **{**site, "value": detached(site["value"])})
    return both


def _out_of_sight(program: str, remedy: str) -> str:
    return (
        f"the {program} has parameters that are out of sight (a network that it neither calls as a module nor is itself), "
        f"so that they cannot be stopped; make the {program} a module, or {remedy}"
    )


def require_same(program: str, again: Tensor, before: Tensor) -> None:
    """Raise an error where two runs of a program at the same draws differ; a recording has no numbers to compare."""
    if is_recording() or torch.allclose(again, before, rtol=1e-3, atol=1e-2, equal_nan=True):
        return
    difference = (again - before).abs().nan_to_num().max()
    raise RunTwiceError(
        f"{program}, run again at the same draws, has other densities (they differ by {difference:.3g} nats): it is random "
        "beyond its sample sites (dropout?), or counts the batch (batch normalisation?), and this estimator runs it twice; "
        'call eval() on that layer, or take estimator="reparameterized", which runs it once'
    )
