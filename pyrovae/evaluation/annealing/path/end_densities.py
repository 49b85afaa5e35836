r"""The densities at both ends of the path, as functions of unconstrained latents, with their gradients."""

from typing import Any

import pyro
import torch
from pyro.distributions import ImproperUniform, constraints
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from pyrovae.engine.pair import Pair
from pyrovae.engine.sites import with_values
from pyrovae.engine.weights import LogWeights
from pyrovae.evaluation.annealing.path.initial_density import InitialDensity
from pyrovae.evaluation.annealing.path.state import State
from pyrovae.evaluation.annealing.path.unmasked import called_unmasked
from pyrovae.evaluation.annealing.unconstrained.latents import UnconstrainedLatents
from pyrovae.runtime.batches import Batch


class EndDensities(nn.Module):
    r"""Compute :math:`\log f_0` and :math:`\log f_1 = \log p(x, z)` of unconstrained latents, each of shape ``(K, B)``.

    Both include the log determinant of the Jacobian of the map from unconstrained space.

    Args:
        pair: the programs, started.
        initial: the density :math:`f_0`.
        weights: of draws that show the latent sites of the guide.
        latents: the map between the sites and unconstrained space.
        absent: names of the latents whose masks are taken off.
    """

    def __init__(
        self,
        pair: Pair,
        initial: InitialDensity,
        weights: LogWeights,
        latents: UnconstrainedLatents,
        absent: frozenset[str],
    ) -> None:
        super().__init__()
        self.pair, self._absent = pair, absent
        self._initial, self._example, self._latents, self._plates = initial, weights.guide, latents, weights.plates

    def forward(self, x: Tensor, u: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
        weights, log_det = self.weigh(x, u, **given)
        log_f0, log_f1 = self._densities(log_det, self._initial.log_density(weights), weights.log_joint)
        return log_f0, log_f1

    def _densities(self, log_det: Tensor, *terms: Tensor) -> list[Tensor]:
        """Make densities of unconstrained latents, each of shape ``(K, B)``, of those of the values of all latents."""
        return [self._latents.outcomes.summed(term + log_det) for term in terms]

    def weigh(self, x: Tensor, u: Tensor, **given: Tensor) -> tuple[LogWeights, Tensor]:
        """Weigh the latents, once for each outcome of discrete ones, and return the log determinant of the Jacobian too."""
        draws, log_det = self._draws(u)
        with called_unmasked(self.pair, self._absent, x, given, len(log_det), self.pair.plates) as call:
            model_trace = call.observe(draws)
            weights = call.compose(model_trace, self._initial.propose(call, draws))
        return weights.with_proposal_density(), log_det

    @torch.no_grad()
    def values(self, batch: Batch, u: Tensor) -> list[Tensor]:
        r"""Evaluate :math:`\log f_0`, :math:`\log f_1` and the log prior at ``u``, each of shape ``(K, B)``."""
        weights, log_det = self.weigh(batch.x, u, **batch.given)
        return self._densities(log_det, self._initial.log_density(weights), weights.log_joint, weights.log_prior)

    def joint(self, batch: Batch, u: Tensor) -> list[Tensor]:
        r"""Evaluate :math:`\log f_1` and its gradient, ``(K, B)`` and ``(K, B, D)``, at ``u``; the guide is not run."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            draws, log_det = self._draws(u)
            with called_unmasked(self.pair, self._absent, batch.x, batch.given, len(log_det), self._plates) as call:
                log_joint = call.joint(call.observe(draws), draws, self._plates)
            (log_f1,) = self._densities(log_det, log_joint)
            return [log_f1.detach(), *_gradient(log_f1, u)]

    def require_fixed_supports(self, batch: Batch, draws: Trace) -> None:
        """Raise an InputError for latents whose support depends on a discrete one, whatever that is in the draws."""
        if (number := self._latents.outcomes.number) == 1:
            return
        values, _ = self._latents.unpack(self._latents.pack_trace(draws))
        turned = {name: value.roll(1, 0) for name, value in values.items()}
        with called_unmasked(self.pair, self._absent, batch.x, batch.given, number, self._plates) as call:
            one, other = (call.observe(with_values(self._example, each)) for each in (values, turned))
        self._latents.require_fixed_supports(one, other, draws)

    def _draws(self, u: Tensor) -> tuple[Trace, Tensor]:
        """Make the draws that have these latents, once for each outcome of discrete ones, and the log determinant."""
        values, log_det = self._latents.unpack(u)
        return with_values(self._example, values), log_det

    def state(self, batch: Batch, u: Tensor) -> State:
        """Evaluate both densities and their gradients at ``u``."""
        return State(u, *self.with_gradients(batch, u))

    def with_gradients(self, batch: Batch, u: Tensor) -> list[Tensor]:
        """Both densities, and the gradients of either, in the order of :class:`State`."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            log_f0, log_f1 = self(batch.x, u, **batch.given)
            (gradient_0,) = _gradient(log_f0, u, retain_graph=True)
            (gradient_1,) = _gradient(log_f1, u)
        return [log_f0.detach(), log_f1.detach(), gradient_0, gradient_1]

    def stand_in(self, *_: Any, **__: Any) -> None:
        """Sample the latent sites of the guide from improper densities: a guide that is only run at given values."""
        for name, site in self._example.nodes.items():
            pyro.sample(name, ImproperUniform(constraints.real, (), site["fn"].event_shape))


def _gradient(log_density: Tensor, u: Tensor, retain_graph: bool = False) -> tuple[Tensor, ...]:
    return torch.autograd.grad(log_density.sum(), u, retain_graph=retain_graph, allow_unused=True, materialize_grads=True)
