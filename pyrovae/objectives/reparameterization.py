"""The refusal of guides whose draws carry no gradient, by objectives that differentiate through them."""

from typing import Protocol

from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.sites import Site
from pyrovae.engine.stop_gradient_densities import observe_apart
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError


class Reparameterizing(Protocol):
    """An objective that says for which sites of the guide it needs no reparameterised draws."""

    def reparameterizes(self, site: Site) -> bool:
        """Whether the gradient of a site's draws reaches the guide."""
        ...


def weigh_apart(objective: Reparameterizing, call: Call) -> tuple[Trace, LogWeights, Tensor]:
    """Draw, and weigh by :func:`~pyrovae.engine.stop_gradient_densities.observe_apart`, if this objective may use it."""
    draws = call.draw()
    weights, alive = observe_apart(call, draws)
    weights.require_densities(type(objective).__name__)
    require_reparameterized(objective, weights)
    return draws, weights, alive


def require_reparameterized(objective: Reparameterizing, weights: LogWeights) -> None:
    """Raise an InputError where the guide would be left without the gradient of a draw."""
    for name, term in weights.proposal_terms.items():
        site = weights.guide.nodes[name]
        if term.requires_grad and not site["is_observed"] and not objective.reparameterizes(site):
            family = type(getattr(site["fn"], "base_dist", site["fn"])).__name__
            raise InputError(
                f"site {name!r} of the guide draws from {family}, which cannot be reparameterised, and "
                f"{type(objective).__name__} would leave the guide without its gradient; take a reparameterised "
                'distribution there, or VIMCO, ReweightedWakeSleep or estimator="score_function", which need none'
            )
