r"""The geometric path from a density that can be sampled to the posterior.

.. math::
    \log f_\beta(z) = (1 - \beta) \log f_0(z) + \beta \log f_1(z), \qquad
    f_0 = p(z) \text{ or } q(z \mid x), \quad f_1 = p(x, z),

for any pair of programs, on latents in unconstrained space.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.sleep_phase import dream
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path.compiled_densities import CompiledDensities, Fused, Name, fused_densities
from pyrovae.evaluation.annealing.path.end_densities import EndDensities
from pyrovae.evaluation.annealing.path.initial_density import INITIAL_DENSITIES, Start
from pyrovae.evaluation.annealing.path.numerical_failures import FailuresAsNaN, bisected, evaluated
from pyrovae.evaluation.annealing.path.state import State
from pyrovae.evaluation.annealing.path.unmasked import absent_latents, called_unmasked
from pyrovae.evaluation.annealing.unconstrained.latents import UnconstrainedLatents
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.parameters import same_random_numbers


class Path:
    r"""The densities :math:`f_\beta` of one batch, for a number of chains.

    Args:
        pair: the programs, started.
        batch: the data.
        chains: the number K of chains a datum.
        start: the density :math:`f_0`.
    """

    def __init__(self, pair: Pair, batch: Batch, chains: int, start: Start) -> None:
        self.batch, self.chains = batch, chains
        self._pair, self._initial = pair, INITIAL_DENSITIES[start]
        self._fused: Fused | None = None
        self._compiled: CompiledDensities | None = None
        self._absent: frozenset[str] = frozenset()  # until a draw shows them
        with torch.no_grad(), same_random_numbers(*batch.tensors):
            self._absent = absent_latents(guided := self._guided())
            guided = self._guided() if self._absent else guided
            self._initial.require(guided)
            with self._initial.requiring_defined(), self._called(1) as call:
                weights, again = (self._initial.weigh(call, [*guided.latent_terms]) for _ in range(2))
            weights.require_densities("annealed importance sampling")
            self.latents = UnconstrainedLatents(weights, guided.guide)
            self.latents.require_fixed_supports(weights.model, again.model, guided.guide)
            self._densities = EndDensities(pair, self._initial, weights, self.latents, self._absent)
            with self._initial.requiring_defined():
                self._densities.require_fixed_supports(batch, guided.guide)
            self._dtype = self.latents.pack_trace(guided.guide).dtype  # the prior's may be another

    def _called(self, particles: int) -> AbstractContextManager[Call]:
        """The pair called on the batch."""
        return called_unmasked(self._pair, self._absent, self.batch.x, self.batch.given, particles, self._pair.plates)

    def _guided(self) -> LogWeights:
        """Weigh a draw of the guide for each datum."""
        with self._called(1) as call:
            return call.weigh(call.draw()).with_proposal_density()

    def sample_initial(self) -> Tensor:
        r"""Draw unconstrained latents from :math:`f_0`, shape ``(K, B, D)``, as :meth:`sample` does."""
        return self.sample(self._initial.name, self.chains)

    def sample(self, start: Start, number: int) -> Tensor:
        """Draw unconstrained latents from the prior or the guide, shape ``(number, B, D)``.

        Raises:
            InputError: where the programs fail there.
        """
        density = INITIAL_DENSITIES[start]
        with torch.no_grad(), density.requiring_defined(), self._called(number) as call:
            trace = density.sample(call)
        return self.latents.pack_trace(trace).to(self._dtype)

    def simulate(self) -> tuple["Path", Tensor]:
        """Draw data and latents from the model; return the path of the data, and the latents for each chain."""
        with self._called(1) as call:
            awake, draws = dream(self._initial.at_simulated_latents(call, self._densities.stand_in))
        u = self.latents.pack_trace(draws)
        path = self.with_batch(replace(self.batch, x=awake.args[0]))
        return path, u.expand(self.chains, *u.shape[1:]).contiguous()

    def begin(self, u: Tensor) -> State:
        """Evaluate the path where chains begin.

        Raises:
            InputError: where the programs fail there, or a density is not a number: that is the pair's fault, no chain's.
        """
        with self._initial.requiring_defined():
            state = self._evaluate(u)
            if bool((state.log_f0.isnan() | state.log_f1.isnan()).any()):
                self._raise_not_a_number(u)
        return state

    @torch.no_grad()
    def _raise_not_a_number(self, u: Tensor) -> NoReturn:
        self._densities.weigh(self.batch.x, u, **self.batch.given)[0].require_numbers()
        raise InputError(
            f"a density is not a number where chains begin, at draws of the {self._initial.name}; begin elsewhere"
        )

    def at(self, u: Tensor, safe: Tensor) -> State:
        """Evaluate the path at ``u``, with NaN where the programs fail, which they do not at the positions ``safe``."""
        singly = partial(bisected, self._evaluate_eagerly, u, safe)
        return evaluated(partial(self._evaluate, u), singly, fused=self._fused is not None)

    def _evaluate(self, u: Tensor) -> State:
        if self._fused is not None:
            return State(u, *self._fused(*self.batch.tensors, u))
        return self._evaluate_eagerly(u)

    def _evaluate_eagerly(self, u: Tensor) -> State:
        return self._densities.state(self.batch, u)

    def joint(self, u: Tensor, safe: Tensor) -> tuple[Tensor, Tensor]:
        r"""Evaluate :math:`\log f_1` and its gradient at ``u``, as :meth:`at` does."""
        evaluate, fused = self._method("joint", u)

        def singly() -> list[Tensor]:
            state = bisected(self._evaluate_eagerly, u, safe)
            return [state.log_f1, state.gradient_1]

        log_f1, gradient = evaluated(evaluate, singly, fused=fused)
        return log_f1, gradient

    def values(self, u: Tensor) -> list[Tensor]:
        r"""Evaluate :math:`\log f_0`, :math:`\log f_1` and the log prior at ``u``, without gradients.

        They are NaN where a matrix has no Cholesky factor or inverse, and all of them where the programs fail otherwise.
        """
        evaluate, fused = self._method("values", u)

        def leniently() -> list[Tensor]:
            with FailuresAsNaN():
                eagerly = partial(self._densities.values, self.batch, u)
                return evaluated(eagerly, lambda: [torch.full_like(u[..., 0], torch.nan)] * 3)

        return evaluated(evaluate, leniently, fused=fused)

    def _method(self, name: Name, u: Tensor) -> tuple[Callable[[], list[Tensor]], bool]:
        """Return a method of the densities at ``u``, and whether it is fused."""
        if self._compiled and (fused := self._compiled.get(name, self._densities, self.batch, u)):
            return partial(fused, *self.batch.tensors, u), True
        return partial(getattr(self._densities, name), self.batch, u), False

    @property
    def compiled(self) -> bool:
        """Whether evaluation is recorded and fused."""
        return self._fused is not None

    def compile(self) -> None:
        """Record and fuse the evaluation; where it cannot be recorded, warn and evaluate eagerly."""
        with same_random_numbers(self.batch.x):
            u = self.sample_initial()
        self._fused = fused_densities(self._densities, self._initial, self.batch, u)

    def compile_for(self, sizes: set[int]) -> None:
        """Record and fuse :meth:`joint` and :meth:`values` from now on, for batches of these sizes."""
        self._compiled = self._compiled or CompiledDensities(self._initial)
        self._compiled.sizes.update(sizes)

    def with_batch(self, batch: Batch) -> "Path":
        """The path of other data of the same shapes, which is recorded anew only where the supports of latents differ."""
        other = Path(self._pair, batch, self.chains, self._initial.name)
        differs = not other.latents.has_supports_of(self.latents) or other._absent != self._absent
        if not differs:
            other._fused, other._compiled = self._fused, self._compiled
        elif self.compiled:
            other.compile()
        return other
