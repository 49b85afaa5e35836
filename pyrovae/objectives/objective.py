r"""What every objective is: a number a datum, made of log importance weights.

An objective says two things. Its *bound* is the value it reports, in nats. Its *surrogate* is what is differentiated; where
the gradient estimator is plain autodiff, the two are one.
"""

from abc import abstractmethod
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.plates import Plates
from pyrovae.engine.plates_cache import PlatesCache
from pyrovae.engine.programs import PairLike, programs
from pyrovae.engine.sites import Site
from pyrovae.engine.stop_gradient_densities import RunTwiceError, observe_apart
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.runtime.fixed_randomness import FixedRandomness
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import Program, same_random_numbers
from pyrovae.runtime.perturbation import perturbed


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
        coupled: whether the value of a datum depends on the others in its batch, which is then not the sum of its parts.
    """

    parts: tuple[str, ...] = ()
    sign = 1
    coupled = False
    state: nn.Module | None = None

    def __init__(self, num_particles: int) -> None:
        if num_particles < 1:
            raise InputError(f"num_particles is {num_particles}; {type(self).__name__} needs at least 1")
        super().__init__(num_particles=num_particles, vectorize_particles=True)
        self._cached: tuple[tuple[Program, Program] | None, PlatesCache] = None, PlatesCache()
        self._examined: set[tuple[bool, ...]] = set()

    @abstractmethod
    def evaluate(self, call: Call) -> Evaluation:
        """Draw, weigh, and say what is reported and what is differentiated.

        Raises:
            InputError: where the objective would be wrong on these programs.
        """

    def reparameterizes(self, site: Site) -> bool:
        """Whether what it draws at a site of the guide carries a gradient."""
        return site["fn"].has_rsample

    def reconstruction(self, weights: LogWeights) -> Tensor:
        r"""The estimate of :math:`E_q[\log p(x \mid z)]` that is reported for each datum, shape ``(B,)``."""
        return weights.log_likelihood.mean(0)

    def kl(self, weights: LogWeights) -> Tensor:
        r"""The estimate of :math:`KL(q \| p)` that is reported for each datum, shape ``(B,)``."""
        return (weights.log_proposal - weights.log_prior).mean(0)

    def examine(self, call: Call) -> None:
        """Raise an InputError where the value would be wrong, and :meth:`evaluate` cannot see it; called once a pair."""

    def examine_gradient(self, call: Call) -> None:
        """The same of the gradient; called before it is first wanted, and again where programs are recorded.

        What :meth:`evaluate` looks at it looks at here, since a recording sees no numbers.
        """
        self.evaluate(call)

    def measure(
        self, model: Program, guide: Program, *args: Any, plates: Plates | None = None, **kwargs: Any
    ) -> Measurement:
        """The loss, and the terms that make it, on one batch of a pair that was examined, as modules and ``SVI`` see to."""
        weights, bound, surrogate, parts = self.evaluate(Call(model, guide, args, kwargs, self.num_particles, plates))
        value = bound if surrogate is bound else bound.detach() + (surrogate - surrogate.detach())
        loss = -self.sign * weights.scale * value.sum()
        with torch.no_grad():
            terms = self.reconstruction(weights), self.kl(weights)
            others = torch.stack(parts).detach() if parts else bound.new_zeros(0, len(bound))
        return Measurement(loss, bound.detach(), *terms, others, weights.scale)

    def __call__(self, pair: PairLike | Program, guide: Program | None = None) -> "ObjectiveModule":  # pyright: ignore
        """The module of this objective on a pair, ``IWAE(5)(vae)``, or, as Pyro has it, ``IWAE(5)(model, guide)``."""
        return ObjectiveModule(*programs(pair if guide is None else (pair, guide)), self)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The loss as a scalar tensor, with Pyro's parameter store as it is."""
        pair, cache = self._cached
        if new := pair != (model, guide):
            self._cached = _, cache = (model, guide), PlatesCache()
            self._examined = set()
        plates = cache.at(model, guide, args, kwargs)
        call = Call(model, guide, args, kwargs, self.num_particles, plates)
        if new:
            self.examine_all(call, gradient=False)
        if torch.is_grad_enabled() and cache.modes not in self._examined:
            self.examine_all(call, gradient=True)
            self._examined.add(cache.modes)
        return self.measure(model, guide, *args, plates=plates, **kwargs).loss

    def examine_all(self, call: Call, gradient: bool) -> None:
        """:meth:`examine` or :meth:`examine_gradient`, leaving random generators and buffers as they were."""
        alone = same_random_numbers(*call.args, *call.kwargs.values())
        with torch.enable_grad(), alone, reached(call.model, call.guide, self.state or nn.Module()) as modules:
            (self.examine_gradient if gradient else self.examine)(call)
            if gradient:
                self._examine_what_hides(call, modules)

    def _examine_what_hides(self, call: Call, modules: list[nn.Module]) -> None:
        """Raise an InputError where something before a head that begins at zero is random, unseen as yet."""
        with perturbed(modules):
            failure = self._failure(call)
            if isinstance(failure, RunTwiceError) and self._failure(call, still=True) is None:
                raise failure

    def _failure(self, call: Call, still: bool = False) -> Exception | None:
        """Why the gradient cannot be examined, which may come of moved parameters; ``still``: without dropout."""
        try:
            with FixedRandomness() if still else nullcontext():
                self.examine_gradient(call)
        except Exception as error:
            return error
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Without the pair that it was last called on."""
        return {**vars(self), "_cached": (None, PlatesCache()), "_examined": set()}

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
        self._examined: set[tuple[bool, ...]] = set()
        if objective.state is not None:
            self.state = objective.state

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The loss: minus the bound, or plus an upper one, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Find plates and parameters, and let the objective examine the pair; the first call does it by itself."""
        super().start(*args, **kwargs)
        self._examined = set()
        self._examine(args, kwargs, gradient=False)
        if torch.is_grad_enabled():
            self.examine_gradient(*args, **kwargs)

    def examine_gradient(self, *args: Any, **kwargs: Any) -> None:
        """Raise an InputError where the objective has no right gradient on this pair in its mode, training or evaluation."""
        self._examine(args, kwargs, gradient=True)
        self._examined.add(self._plates_cache.modes)

    def _examine(self, args: tuple, kwargs: dict, gradient: bool) -> None:
        with self.opened() as (model, guide):
            call = Call(model, guide, args, kwargs, self.elbo.num_particles, self.plates)
            self.elbo.examine_all(call, gradient)

    def measure(self, *args: Any, **kwargs: Any) -> Measurement:
        """The loss and, for each datum, bound, reconstruction, KL and the objective's other parts."""
        if not is_recording():
            self.ready(*args, **kwargs)
            if torch.is_grad_enabled() and self._plates_cache.modes not in self._examined:
                self.examine_gradient(*args, **kwargs)
        with self.opened() as (model, guide):
            return self.elbo.measure(model, guide, *args, plates=self.plates, **kwargs)

    def weights(self, *args: Any, **kwargs: Any) -> LogWeights:
        """Log weights of the objective's number of particles."""
        return self.weigh(self.elbo.num_particles, *args, **kwargs)


def weigh_apart(objective: Objective, call: Call) -> tuple[Trace, LogWeights, Tensor]:
    """Draws with the result of :func:`~.stop_gradient_densities.observe_apart`, if this objective may use it."""
    draws = call.draw()
    weights, alive = observe_apart(call, draws)
    weights.require_densities(type(objective).__name__)
    require_reparameterized(objective, weights)
    return draws, weights, alive


def require_reparameterized(objective: Objective, weights: LogWeights) -> None:
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
