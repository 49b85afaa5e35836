r"""The initial density :math:`f_0` of annealed chains: the prior, or the guide.

Each draws the latents, weighs them, and refuses a pair for which it cannot do so. From the prior no density of the guide
matters: in the weights, stand-ins of density 1 are in its place.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from pyro.distributions import Delta, ImproperUniform, constraints
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.path.numerical_failures import NUMERICAL_ERRORS
from pyrovae.runtime.parameters import Program

Start = Literal["prior", "guide"]
"""The density that chains begin with."""


class InitialDensity(ABC):
    r"""The density :math:`f_0`, which can be sampled."""

    name: Start
    other: Start

    @abstractmethod
    def require(self, weights: LogWeights) -> None:
        """Raise an InputError where the pair has no such density that can be sampled."""

    @abstractmethod
    def sample(self, call: Call) -> Trace:
        """Draw the latents."""

    @abstractmethod
    def weigh(self, call: Call, latents: list[str]) -> LogWeights:
        """Weigh draws of the named latents."""

    @abstractmethod
    def propose(self, call: Call, draws: Trace) -> Trace:
        """Trace the guide at given latents, as far as its density matters."""

    @abstractmethod
    def log_density(self, weights: LogWeights) -> Tensor:
        r"""Return :math:`\log f_0`, shape ``(K, B)``, in nats."""

    @abstractmethod
    def at_simulated_latents(self, call: Call, stand_in: Program) -> Call:
        """The call that is to be simulated; ``stand_in`` takes the guide's place where its density does not matter."""

    @contextmanager
    def requiring_defined(self) -> Iterator[None]:
        """Turn the programs' numerical errors into an InputError: no chain begins where they fail."""
        try:
            yield
        except InputError:
            raise
        except NUMERICAL_ERRORS as error:
            said = str(error).partition("\n")[0]
            raise InputError(
                f"the programs fail where chains begin, at draws of the {self.name}: {type(error).__name__}: {said}; "
                f'correct them there, or take start="{self.other}"'
            ) from error


class PriorDensity(InitialDensity):
    """The prior :math:`p(z)`."""

    name, other = "prior", "guide"

    def require(self, weights: LogWeights) -> None:
        weights.require_proper_priors("no chain can begin with one", 'take start="guide"')

    def sample(self, call: Call) -> Trace:
        return call.unguided()

    def weigh(self, call: Call, latents: list[str]) -> LogWeights:
        trace, stand_ins = call.unguided(), Trace()
        for name in latents:
            stand_ins.add_node(name, **_stand_in(trace.nodes[name]))
        return call.compose(trace, stand_ins)

    def propose(self, call: Call, draws: Trace) -> Trace:
        return draws

    def log_density(self, weights: LogWeights) -> Tensor:
        return weights.log_prior

    def at_simulated_latents(self, call: Call, stand_in: Program) -> Call:
        return replace(call, guide=stand_in)


class GuideDensity(InitialDensity):
    r"""The guide :math:`q(z \mid x)`."""

    name, other = "guide", "prior"

    def require(self, weights: LogWeights) -> None:
        remedy = 'take start="prior", which needs no density of the guide'
        weights.require_latents_alone(f"the guide's density is not that of the latents alone; {remedy}")
        for name in weights.latent_terms:
            site: Site = weights.guide.nodes[name]
            if isinstance(base_distribution(site["fn"]), Delta):
                raise InputError(f"site {name!r} of the guide is a Delta, a point and no density to anneal from; {remedy}")

    def sample(self, call: Call) -> Trace:
        return call.draw()

    def weigh(self, call: Call, latents: list[str]) -> LogWeights:
        return call.weigh(call.draw()).with_proposal_density()

    def propose(self, call: Call, draws: Trace) -> Trace:
        return call.propose(draws)

    def log_density(self, weights: LogWeights) -> Tensor:
        return weights.log_proposal

    def at_simulated_latents(self, call: Call, stand_in: Program) -> Call:
        return call


INITIAL_DENSITIES: dict[Start, InitialDensity] = {"prior": PriorDensity(), "guide": GuideDensity()}
"""The initial densities by name."""


def _stand_in(site: Site) -> dict[str, Any]:
    fn = site["fn"]
    return {**site, "fn": ImproperUniform(constraints.real, fn.batch_shape, fn.event_shape)}
