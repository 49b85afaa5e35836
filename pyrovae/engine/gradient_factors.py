"""Draws whose gradients are multiplied by factors of particle and datum."""

from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyrovae.compiling.fusion import decompositions
from pyrovae.engine.shapes import per_datum, spread
from pyrovae.engine.sites import Site, density_sites, with_values
from pyrovae.engine.weights import LogWeights


def _scale_gradient_fake(z: Tensor, event_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = z.shape[: z.dim() - event_dim]
    return z.clone(), z.new_zeros(shape), z.new_zeros(shape)


@torch.library.custom_op("pyrovae::scale_gradient", mutates_args=())
def _scale_gradient(z: Tensor, event_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return z, and two zeros per draw; the gradient of z is multiplied by the quotient of theirs."""
    return _scale_gradient_fake(z, event_dim)


def _scale_gradient_backward(ctx: Any, of_z: Tensor, numerator: Tensor, denominator: Tensor) -> tuple[Tensor, None]:
    factor = torch.where(denominator == 0.0, 0.0, numerator / denominator)
    return of_z * factor[(..., *[None] * ctx.event_dim)], None


def _scale_gradient_context(ctx: Any, inputs: tuple[Tensor, int], output: Any) -> None:
    ctx.event_dim = inputs[1]


_scale_gradient.register_fake(_scale_gradient_fake)
_scale_gradient.register_autograd(_scale_gradient_backward, setup_context=_scale_gradient_context)
decompositions[torch.ops.pyrovae.scale_gradient.default] = _scale_gradient_fake


class ScaledGradientDraws:
    r"""Draws whose gradients can be multiplied, once the weights are known, by factors of particle and datum.

    The factors arrive in the backward pass: each draw comes with two zeros, of which :meth:`scaling_term` makes a zero whose
    gradient with respect to them is the factor and 1, whatever the loss is multiplied by later on.

    Attributes:
        trace: the guide's trace with these draws in the place of its own.
    """

    def __init__(self, draws: Trace) -> None:
        values: dict[str, Tensor] = {}
        self._zeros: list[tuple[Site, Tensor, Tensor]] = []
        for site in density_sites(prune_subsample_sites(draws)):
            if not site["is_observed"] and site["value"].requires_grad:
                value, *zeros = torch.ops.pyrovae.scale_gradient(site["value"], site["fn"].event_dim)
                values[site["name"]] = value
                self._zeros.append((site, *zeros))
        self.trace = with_values(draws, values)

    def scaling_term(self, factors: Tensor, weights: LogWeights) -> Tensor:
        """A zero per datum that, added to the loss, multiplies the draws' gradients by ``(K, B)`` factors."""
        terms = torch.zeros_like(factors)
        for site, numerator, denominator in self._zeros:
            terms = terms + per_datum(
                numerator * spread(factors, site, weights.plates) + denominator, site, len(factors), weights.plates
            )
        return terms.sum(0)
