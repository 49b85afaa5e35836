r"""Estimators of the gradient of a bound that is a function :math:`F` of the log weights alone.

With :math:`h_k = \log w_k`, :math:`c_k = \partial F / \partial h_k` and :math:`z_k = z(\varphi, \varepsilon_k)`, the
gradient of :math:`E[F]` with respect to the model's parameters is
:math:`E \sum_k c_k\, \partial_\theta \log p(x, z_k)`. For the guide's there are several estimators:

======================  ============================================================================================
``reparameterized``     autodiff of F through the draws and through :math:`\log q`
``score_function``      the draws are stopped: :math:`\sum_k s_k\, \partial_\varphi \log q(z_k)` beside autodiff of F, with
                        signals :math:`s_k`: F, less what does not depend on :math:`z_k`. Needs no reparameterisation
``stl``                 the parameters of :math:`q` in F are stopped ("sticking the landing"). Unbiased for the ELBO; for
                        other bounds of more than one particle it is not
``dreg``                doubly reparameterised: :math:`\sum_k d_k\, \partial_{z} h_k\, \partial_\varphi z_k` with stopped
                        :math:`q` and :math:`d_k = c_k - \partial c_k / \partial h_k`; unbiased, and the same as ``stl`` for
                        the ELBO
``resampled``           the gradient of a single :math:`h_k`, for a k that is drawn with the probabilities :math:`c`, for the
                        model as well: unbiased, and the way back through the model costs one particle instead of K; in
                        return neither gradient gains from a larger K but for the bound's being tighter
======================  ============================================================================================

At an exact posterior ``stl`` and ``dreg`` give the guide a gradient of exactly 0.

References:
    | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), section 2.4; https://arxiv.org/abs/1312.6114
    | Sticking the Landing (Roeder, Wu & Duvenaud, 2017); https://arxiv.org/abs/1703.09194
    | Doubly Reparameterized Gradient Estimators (Tucker et al., 2019); https://arxiv.org/abs/1810.04152
    | Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 3; https://arxiv.org/abs/1509.00519
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.gradient_factors import ScaledGradientDraws
from pyrovae.engine.resampling import choose
from pyrovae.engine.stop_gradient_densities import require_same, stopped_density, with_draws_of_model
from pyrovae.engine.stop_gradient_draws import density_of_draws, draw_stopped
from pyrovae.engine.weights import LogWeights
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.reparameterization import Reparameterizing, require_reparameterized

Estimator = Literal["reparameterized", "score_function", "stl", "dreg", "resampled"]


class FunctionOfWeights(Reparameterizing, Protocol):
    """What the estimators ask of a bound: :class:`~pyrovae.objectives.weight_bound.WeightBound` says what each is."""

    def value(self, log_weights: Tensor) -> Tensor: ...

    def slopes(self, log_weights: Tensor) -> Tensor: ...

    def doubly_reparameterized(self, log_weights: Tensor) -> Tensor: ...

    def signals(self, log_weights: Tensor) -> Tensor: ...

    def check(self, weights: LogWeights) -> None: ...


def _reparameterized(bound: FunctionOfWeights, call: Call) -> Evaluation:
    weights = call.weigh(call.draw())
    _check(bound, weights)
    value = bound.value(weights.total)
    return Evaluation(weights, value, value)


def _score_function(bound: FunctionOfWeights, call: Call) -> Evaluation:
    weights = call.weigh(draw_stopped(call))
    bound.check(weights)
    value = bound.value(weights.total)
    signals = bound.signals(weights.total.detach())
    return Evaluation(weights, value, value + (signals * density_of_draws(weights)).sum(0))


def _stl(bound: FunctionOfWeights, call: Call) -> Evaluation:
    draws = call.draw()
    weights = call.weigh(draws)
    _check(bound, weights)
    surrogate = bound.value(weights.log_joint - stopped_density(call, draws, weights))
    return Evaluation(weights, bound.value(weights.total), surrogate)


def _dreg(bound: FunctionOfWeights, call: Call) -> Evaluation:
    draws = call.draw()
    scaled = ScaledGradientDraws(draws)
    weights = call.weigh(draws, at=scaled.trace)
    _check(bound, weights)
    log_weights = weights.total.detach()
    slopes = bound.slopes(log_weights)
    factors = torch.where(slopes == 0.0, 0.0, bound.doubly_reparameterized(log_weights) / slopes)
    landed = weights.log_joint - stopped_density(call, scaled.trace, weights)
    surrogate = counted(slopes, landed) + scaled.scaling_term(factors, weights)
    return Evaluation(weights, bound.value(log_weights), surrogate)


def _resampled(bound: FunctionOfWeights, call: Call) -> Evaluation:
    draws = call.draw()
    with torch.no_grad():
        model_trace = call.observe(draws)
    weights = call.compose(model_trace, draws)
    _check(bound, weights)
    log_weights = weights.total.detach()
    index = _drawn(bound.slopes(log_weights))
    one = replace(call, particles=1)
    single = choose(with_draws_of_model(draws, weights), index, weights)
    joint = one.joint(one.observe(single), choose(draws, index, weights), weights.plates)
    require_same("the model", joint, weights.log_joint.gather(0, index[None]))
    surrogate = joint[0] - weights.log_proposal.gather(0, index[None])[0]
    return Evaluation(weights, bound.value(log_weights), surrogate)


def _drawn(probabilities: Tensor) -> Tensor:
    """Draw an index for each datum, shape ``(B,)``, with probabilities of shape ``(K, B)``."""
    cumulative = probabilities.cumsum(0)
    threshold = torch.rand_like(probabilities[0]) * cumulative[-1]
    return (cumulative <= threshold).sum(0).clamp(max=len(probabilities) - 1)


def counted(factors: Tensor, terms: Tensor) -> Tensor:
    """Sum terms times constant factors over draws; where the factor is zero, so is the product, of any term."""
    return (factors * terms.masked_fill(factors == 0.0, 0.0)).sum(0)


def normalized_powers(log_weights: Tensor, power: float, dim: int = 0) -> Tensor:
    r"""Compute :math:`w_k^\gamma / \sum_j w_j^\gamma` along a dimension."""
    scaled = power * log_weights if power else torch.zeros_like(log_weights)  # the power 0 of a weight of 0 is 1
    return scaled.softmax(dim)


def _check(bound: FunctionOfWeights, weights: LogWeights) -> None:
    bound.check(weights)
    require_reparameterized(bound, weights)


ESTIMATORS: dict[str, Callable[[FunctionOfWeights, Call], Evaluation]] = {
    "reparameterized": _reparameterized,
    "score_function": _score_function,
    "stl": _stl,
    "dreg": _dreg,
    "resampled": _resampled,
}
"""The estimators by the names under which an objective is asked for them."""
