r"""What every objective is: a number a datum, made of log importance weights.

An objective says two things. Its *bound* is the value it reports, in nats. Its *surrogate* is what is differentiated; where
the gradient estimator is plain autodiff, the two are one.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.pair import Pair
from pyrovae.parameters import Program, same_random_numbers
from pyrovae.weights import Call, LogWeights, Plates, find_plates


class Measurement(NamedTuple):
    """What one evaluation of an objective on a batch gives, in nats.

    Attributes:
        loss: minus the bound (plus it, for an upper bound), summed over the data, times the data plate's scale; a scalar
            with the objective's gradient.
        bound: the bound, shape ``(B,)``.
        reconstruction: the mean over particles of ``log p(x | z)``, shape ``(B,)``.
        kl: the estimate of ``KL(q(z | x) || p(z))``, shape ``(B,)``.
        parts: what else the objective is made of, as its ``parts`` name it, shape ``(len(parts), B)``.
        scale: full size over subsample size of the data plate, contained in the loss only.
    """

    loss: Tensor
    bound: Tensor
    reconstruction: Tensor
    kl: Tensor
    parts: Tensor
    scale: float | Tensor


class Evaluation(NamedTuple):
    """What an objective makes of one batch.

    Attributes:
        weights: the log weights.
        bound: the value for each datum, shape ``(B,)``.
        surrogate: what is differentiated for each datum, shape ``(B,)``; its own value does not matter.
        parts: the values that ``Objective.parts`` names, each of shape ``(B,)``.
    """

    weights: LogWeights
    bound: Tensor
    surrogate: Tensor
    parts: tuple[Tensor, ...] = ()


class Objective(PyroELBO):
    """The base of all objectives: drops into ``SVI``, and, called on a pair, gives a module whose output is the loss.

    A subclass defines :meth:`evaluate`.

    Attributes:
        parts: names of further values that it reports for each datum.
        sign: 1 where training raises the value, -1 where it lowers it: an upper bound.
        state: what it keeps from step to step, as a module's buffers.
    """

    parts: tuple[str, ...] = ()
    sign = 1
    state: nn.Module | None = None

    def __init__(self, num_particles: int) -> None:
        if num_particles < 1:
            raise InputError(f"num_particles is {num_particles}; {type(self).__name__} needs at least 1")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self._found: tuple[tuple[Program, Program], Plates] | None = None

    @abstractmethod
    def evaluate(self, call: Call) -> Evaluation:
        """Draw, weigh, and say what is reported and what is differentiated.

        Raises:
            InputError: where the objective would be wrong on these programs.
        """

    def kl(self, weights: LogWeights) -> Tensor:
        r"""The estimate of :math:`KL(q \| p)` that is reported for each datum, shape ``(B,)``."""
        return (weights.proposal - weights.latent).mean(0)

    def examine(self, call: Call) -> None:
        """Raise an InputError where :meth:`evaluate` would be wrong in a way that it cannot see; called once a pair."""

    def measure(
        self, model: Program, guide: Program, *args: Any, plates: Plates | None = None, **kwargs: Any
    ) -> Measurement:
        """The loss, and the terms that make it, on one batch."""
        weights, bound, surrogate, parts = self.evaluate(Call(model, guide, args, kwargs, self.num_particles, plates))
        value = bound if surrogate is bound else surrogate + (bound - surrogate).detach()
        loss = -self.sign * weights.scale * value.sum()
        with torch.no_grad():
            terms = weights.observed.mean(0), self.kl(weights)
            others = torch.stack(parts).detach() if parts else bound.new_zeros(0, len(bound))
        return Measurement(loss, bound.detach(), *terms, others, weights.scale)

    def __call__(self, model: Program, guide: Program) -> "ObjectiveModule":  # pyright: ignore
        """The module of this objective on this pair."""
        return ObjectiveModule(model, guide, self)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as a scalar tensor, with Pyro's parameter store as it is."""
        if self._found is None or self._found[0] != (model, guide):
            plates = find_plates(model, guide, *args, **kwargs)
            self.examine_once(Call(model, guide, args, kwargs, self.num_particles, plates))
            self._found = (model, guide), plates
        return self.measure(model, guide, *args, plates=self._found[1], **kwargs).loss

    def examine_once(self, call: Call) -> None:
        """:meth:`examine`, leaving the random generators as they were."""
        with torch.enable_grad(), same_random_numbers(*call.args, *call.kwargs.values()):
            self.examine(call)

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
        if objective.state is not None:
            self.state = objective.state

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss: minus the bound, or plus an upper one, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Find plates and parameters, and let the objective examine the pair; the first call does it by itself."""
        super().start(*args, **kwargs)
        with self.opened() as (model, guide):
            self.elbo.examine_once(Call(model, guide, args, kwargs, self.elbo.num_particles, self.plates))

    def measure(self, *args: Any, **kwargs: Any) -> Measurement:
        """The loss and, for each datum, bound, reconstruction, KL and the objective's other parts."""
        if self.plates is None and not torch.compiler.is_compiling():
            self.start(*args, **kwargs)
        with self.opened() as (model, guide):
            return self.elbo.measure(model, guide, *args, plates=self.plates, **kwargs)

    def weights(self, *args: Any, **kwargs: Any) -> LogWeights:
        """Log weights of the objective's number of particles."""
        return self.weigh(self.elbo.num_particles, *args, **kwargs)


def require_reparameterized(objective: Objective, weights: LogWeights) -> None:
    """Raise an InputError where the guide would be left without the gradient of a draw."""
    for name, term in weights.proposal_terms.items():
        site = weights.guide.nodes[name]
        if term.requires_grad and not site["is_observed"] and not site["fn"].has_rsample:
            family = type(getattr(site["fn"], "base_dist", site["fn"])).__name__
            raise InputError(
                f"site {name!r} of the guide draws from {family}, which cannot be reparameterised, and "
                f"{type(objective).__name__} would leave the guide without its gradient; take a reparameterised "
                'distribution there, or VIMCO, ReweightedWakeSleep or estimator="score_function", which need none'
            )
