r"""What every objective is: a number a datum, made of log importance weights.

An objective says two things. Its *bound* is the value it reports, a lower bound on :math:`\log p(x)` in nats. Its
*surrogate* is what is differentiated; where the gradient estimator is plain autodiff, the two are one.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.enum import get_importance_trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae.errors import InputError
from pyrovae.parameters import Program, as_parameters, owner, parameter_store
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


class ObjectiveModule(ELBOModule):
    """An objective on a pair: ``module(x)`` is the loss, a scalar tensor.

    The parameters are those of the two programs where these are modules, or methods of one. Those that plain functions
    keep in ``pyro.param`` and ``pyro.module`` statements join at the first call, so call it once before you hand
    ``parameters()`` to an optimiser. ``unknown`` then names the classes of networks that the programs call without having
    named them to Pyro: their parameters are not among these.
    """

    def __init__(self, model: Program, guide: Program, objective: Objective) -> None:
        super().__init__(model, guide, objective)  # pyright: ignore[reportArgumentType]
        self.plates: Plates | None = None
        self.stored = nn.ParameterDict()
        self._constraints: dict[str, Any] = {}
        self.others = nn.ModuleList()
        self.unknown: list[str] = []
        self._adopt(owner(program) for program in (model, guide))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def measure(self, *args: Any, **kwargs: Any) -> Measurement:
        """The loss and, for each datum, bound, reconstruction and KL."""
        if self.plates is None and not torch.compiler.is_compiling():
            self.start(*args, **kwargs)
        with self._open() as (model, guide):
            objective: Any = self.elbo
            return objective.measure(model, guide, *args, plates=self.plates, **kwargs)

    def weights(self, *args: Any, **kwargs: Any) -> LogWeights:
        """The log weights that the objective is made of, at its number of particles."""
        with self._open() as (model, guide):
            return weigh(model, guide, args, kwargs, self.elbo.num_particles, self.plates)

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Run the pair once with validation on: every error of :func:`pyrovae.weights.find_plates`."""
        with self._open() as (model, guide):
            find_plates(model, guide, *args, **kwargs)

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Run the pair once to find its plates and its ``pyro.param`` statements; the first call does it by itself."""
        store = parameter_store(self.model, self.guide)
        with _modules_called() as called, _Entered() as entered, store as (model, guide):
            self.plates = find_plates(model, guide, *args, **kwargs)
        values = {value for _, value in entered.values}
        self._adopt(module for module in called if _trained(module) and _trained(module) <= values)
        mine = set(self.parameters()) - set(self.stored.parameters())
        left = {name: value for name, value in entered.values if value not in mine}
        state = as_parameters(left)
        self._constraints = state["constraints"]
        kept = {name: value for name, value in left.items() if isinstance(value, nn.Parameter)} | state["params"]
        self.stored = nn.ParameterDict({_key(name): value for name, value in kept.items()})
        known = set(self.parameters())
        self.unknown = sorted({type(module).__name__ for module in called if not _trained(module) <= known})

    def _adopt(self, modules: Iterable[Any]) -> None:
        """Make the parameters of modules that the programs run, without being them, parameters of this one."""
        for module in modules:
            if isinstance(module, nn.Module) and module not in set(self.modules()):
                self.others.append(module)

    def _open(self) -> AbstractContextManager[tuple[Program, Program]]:
        params = {name: self.stored[_key(name)] for name in self._constraints}
        return parameter_store(self.model, self.guide, {"params": params, "constraints": self._constraints})


class _Entered(Messenger):
    """The unconstrained values of all ``pyro.param`` statements meanwhile, with their names."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[str, Tensor]] = []

    def _pyro_post_param(self, msg: Any) -> None:
        value = msg["value"]
        self.values.append((msg["name"], value.unconstrained() if hasattr(value, "unconstrained") else value))


@contextmanager
def _modules_called() -> Iterator[list[nn.Module]]:
    """The modules that are called meanwhile, the outer before the inner."""
    called: list[nn.Module] = []
    hook = register_module_forward_pre_hook(lambda module, _: called.append(module))
    try:
        yield called
    finally:
        hook.remove()


def _trained(module: nn.Module) -> set[nn.Parameter]:
    return {value for value in module.parameters() if value.requires_grad}


def _key(name: str) -> str:
    """A name of Pyro's store as a name of torch's, in which a full stop parts modules."""
    return f"param:{name}".replace(".", ":")


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
