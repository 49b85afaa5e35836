r"""What every objective is: a number a datum, made of log importance weights.

An objective says two things. Its *bound* is the value it reports, a lower bound on :math:`\log p(x)` in nats. Its
*surrogate* is what is differentiated; where the gradient estimator is plain autodiff, the two are one.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor

from pyrovae.errors import InputError
from pyrovae.pair import Pair
from pyrovae.parameters import Program
from pyrovae.weights import LogWeights, Plates, find_plates, weigh


class Measurement(NamedTuple):
    """What one evaluation of an objective on a batch gives, in nats.

    Attributes:
        loss: minus the bound, summed over the data, times the data plate's scale; a scalar with the objective's gradient.
        bound: the bound, shape ``(B,)``.
        reconstruction: the mean over particles of ``log p(x | z)``, shape ``(B,)``.
        kl: the estimate of ``KL(q(z | x) || p(z))``, shape ``(B,)``.
        scale: full size over subsample size of the data plate, contained in the loss only.
    """

    loss: Tensor
    bound: Tensor
    reconstruction: Tensor
    kl: Tensor
    scale: float | Tensor


class Objective(PyroELBO):
    """The base of all objectives: drops into ``SVI``, and, called on a pair, gives a module whose output is the loss.

    A subclass defines :meth:`bound`; one whose gradient is not that of its value also defines :meth:`surrogate`.
    """

    def __init__(self, num_particles: int) -> None:
        if num_particles < 1:
            raise InputError(f"num_particles is {num_particles}; {type(self).__name__} needs at least 1")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self._found: tuple[tuple[Program, Program], Plates] | None = None

    @abstractmethod
    def bound(self, weights: LogWeights) -> Tensor:
        """The value for each datum, shape ``(B,)``."""

    def surrogate(self, weights: LogWeights, bound: Tensor) -> Tensor:
        """What is differentiated for each datum, shape ``(B,)``; its own value does not matter."""
        return bound

    def kl(self, weights: LogWeights) -> Tensor:
        r"""The estimate of :math:`KL(q \| p)` that is reported for each datum, shape ``(B,)``."""
        return (weights.proposal - weights.latent).mean(0)

    def check(self, weights: LogWeights) -> None:
        """Raise an InputError where this objective would be wrong on these programs."""
        _require_reparameterized(type(self).__name__, weights)

    def measure(
        self, model: Program, guide: Program, *args: Any, plates: Plates | None = None, **kwargs: Any
    ) -> Measurement:
        """The loss, and the terms that make it, on one batch."""
        weights = weigh(model, guide, args, kwargs, self.num_particles, plates)
        self.check(weights)
        bound = self.bound(weights)
        surrogate = self.surrogate(weights, bound)
        value = bound if surrogate is bound else surrogate + (bound - surrogate).detach()
        loss = -(weights.scale * value.sum())
        with torch.no_grad():
            return Measurement(loss, bound.detach(), weights.observed.mean(0), self.kl(weights), weights.scale)

    def __call__(self, model: Program, guide: Program) -> "ObjectiveModule":  # pyright: ignore
        """The module of this objective on this pair."""
        return ObjectiveModule(model, guide, self)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as a scalar tensor, with Pyro's parameter store as it is."""
        if self._found is None or self._found[0] != (model, guide):
            self._found = (model, guide), find_plates(model, guide, *args, **kwargs)
        return self.measure(model, guide, *args, plates=self._found[1], **kwargs).loss

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss as a number; what ``SVI.evaluate_loss`` calls."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss as a number, its gradient added to the parameters; what ``SVI.step`` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict) -> Any:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)


class ObjectiveModule(Pair):
    """An objective on a pair: ``module(x)`` is the loss, a scalar tensor; ``module.elbo`` is the objective."""

    def __init__(self, model: Program, guide: Program, objective: Objective) -> None:
        super().__init__(model, guide)
        self.elbo = objective

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def measure(self, *args: Any, **kwargs: Any) -> Measurement:
        """The loss and, for each datum, bound, reconstruction and KL."""
        if self.plates is None and not torch.compiler.is_compiling():
            self.start(*args, **kwargs)
        with self.opened() as (model, guide):
            return self.elbo.measure(model, guide, *args, plates=self.plates, **kwargs)

    def weights(self, *args: Any, **kwargs: Any) -> LogWeights:
        """The log weights that the objective is made of, at its number of particles."""
        return self.weigh(self.elbo.num_particles, *args, **kwargs)


def _require_reparameterized(objective: str, weights: LogWeights) -> None:
    for name, term in weights.proposal_terms.items():
        site = weights.guide.nodes[name]
        if term.requires_grad and not site["is_observed"] and not site["fn"].has_rsample:
            family = type(getattr(site["fn"], "base_dist", site["fn"])).__name__
            raise InputError(
                f"site {name!r} of the guide draws from {family}, which cannot be reparameterised, and {objective} would "
                "leave the guide without its gradient; take a reparameterised distribution there, or Pyro's Trace_ELBO, "
                "whose score-function gradient needs none"
            )
