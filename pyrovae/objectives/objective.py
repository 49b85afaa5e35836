r"""The base of all objectives: a number a datum, made of log importance weights.

An objective says two things. Its *bound* is the value it reports, in nats. Its *surrogate* is what is differentiated; where
the gradient estimator is plain autodiff, the two are one.
"""

from abc import abstractmethod
from contextlib import nullcontext
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.enum import get_importance_trace
from torch import Tensor, nn

from pyrovae.engine.call import Call
from pyrovae.engine.plates import Plates
from pyrovae.engine.plates_cache import PlatesCache
from pyrovae.engine.programs import PairLike, programs
from pyrovae.engine.sites import Site
from pyrovae.engine.stop_gradient_densities import RunTwiceError
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.measurement import Evaluation, Measurement
from pyrovae.objectives.objective_module import ObjectiveModule
from pyrovae.runtime.fixed_randomness import FixedRandomness
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import Program, same_random_numbers
from pyrovae.runtime.perturbation import perturbed


class Objective(PyroELBO):
    """The base of all objectives: a loss for ``SVI``, and, called on a pair, a module whose output is the loss.

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
        """Draw, weigh, and return what is reported and what is differentiated.

        Raises:
            InputError: where the objective would be wrong on these programs.
        """

    def reparameterizes(self, site: Site) -> bool:
        """Return whether a draw at a site of the guide carries a gradient."""
        return site["fn"].has_rsample

    def reconstruction(self, weights: LogWeights) -> Tensor:
        r"""Estimate :math:`E_q[\log p(x \mid z)]` of each datum, to be reported, shape ``(B,)``."""
        return weights.log_likelihood.mean(0)

    def kl(self, weights: LogWeights) -> Tensor:
        r"""Estimate :math:`KL(q \| p)` of each datum, to be reported, shape ``(B,)``."""
        return (weights.log_proposal - weights.log_prior).mean(0)

    def examine(self, call: Call) -> None:
        """Raise an InputError where the value would be wrong, and :meth:`evaluate` cannot see it; called once a pair."""

    def examine_gradient(self, call: Call) -> None:
        """Raise an InputError where the gradient would be wrong; called before its first use, and again for a recording.

        What :meth:`evaluate` looks at it looks at here, since a recording sees no numbers.
        """
        self.evaluate(call)

    def measure(
        self, model: Program, guide: Program, *args: Any, plates: Plates | None = None, **kwargs: Any
    ) -> Measurement:
        """Compute the loss and its terms on one batch of a pair that was examined, as modules and ``SVI`` see to."""
        weights, bound, surrogate, parts = self.evaluate(Call(model, guide, args, kwargs, self.num_particles, plates))
        value = bound if surrogate is bound else bound.detach() + (surrogate - surrogate.detach())
        loss = -self.sign * weights.scale * value.sum()
        with torch.no_grad():
            terms = self.reconstruction(weights), self.kl(weights)
            others = torch.stack(parts).detach() if parts else bound.new_zeros(0, len(bound))
        return Measurement(loss, bound.detach(), *terms, others, weights.scale)

    def __call__(self, pair: PairLike | Program, guide: Program | None = None) -> ObjectiveModule:  # pyright: ignore
        """Make the module of this objective on a pair, ``IWAE(5)(vae)``, or, as in Pyro, ``IWAE(5)(model, guide)``."""
        return ObjectiveModule(*programs(pair if guide is None else (pair, guide)), self)

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the loss as a scalar tensor, with Pyro's parameter store as it is."""
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
        """Call :meth:`examine` or :meth:`examine_gradient`, leaving random generators and buffers as they were."""
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
        """Return why the gradient cannot be examined, which may come of moved parameters; ``still``: without dropout."""
        try:
            with FixedRandomness() if still else nullcontext():
                self.examine_gradient(call)
        except Exception as error:
            return error
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to pickle, without the pair that it was last called on."""
        return {**vars(self), "_cached": (None, PlatesCache()), "_examined": set()}

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Compute the loss as a number, for ``SVI.evaluate_loss``."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, *args, **kwargs).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Compute the loss as a number and add its gradient to the parameters, for ``SVI.step``."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        return loss.item()

    def _get_trace(self, model: Program, guide: Program, args: tuple, kwargs: dict) -> Any:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
