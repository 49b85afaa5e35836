"""The continuous latents of a pair in unconstrained space, as one array; discrete ones are summed over."""

from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import constraints

from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution, stated_support
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.evaluation.annealing.unconstrained.outcomes import Outcomes
from pyrovae.evaluation.annealing.unconstrained.site import UnconstrainedSite


class UnconstrainedLatents:
    """The continuous latents of a pair as one array of unconstrained numbers, shape ``(K, B, D)``, and back.

    Attributes:
        supports: the values that each can have, by name.
        outcomes: those of the discrete latents, which come back as more particles: K for each outcome.

    Args:
        weights: of draws that show the shapes of the latents.
        proposed: the guide's trace, which has the supports of those latents for which the model states none.

    Raises:
        InputError: where no latent is continuous, or discrete ones have too many outcomes; and for latents whose support
            has no bijection to unconstrained space.
    """

    def __init__(self, weights: LogWeights, proposed: Trace) -> None:
        self.supports = {name: _support(name, weights.model, proposed) for name in weights.latent_terms}
        continuous = {name: support for name, support in self.supports.items() if not support.is_discrete}
        discrete = {name: weights.model.nodes[name] for name in self.supports if name not in continuous}
        if discrete and not continuous:
            raise _all_discrete(discrete)
        self.outcomes = Outcomes(discrete, weights.plates)
        self._sites = {name: _site(name, support, weights) for name, support in continuous.items()}

    @property
    def dimensions(self) -> int:
        """The number of unconstrained numbers of one datum."""
        return sum(site.size for site in self._sites.values())

    def pack_trace(self, trace: Trace) -> Tensor:
        """Map the values that a trace has at the latent sites to unconstrained numbers."""
        values: dict[str, Any] = {name: trace.nodes[name]["value"] for name in self._sites}
        return self.pack(values)

    def pack(self, values: dict[str, Tensor]) -> Tensor:
        """Map values of the sites to unconstrained numbers, shape ``(K, B, D)``."""
        return torch.cat([site.pack(values[name]) for name, site in self._sites.items()], -1)

    def unpack(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Map unconstrained numbers to values of the sites, with the log determinant of the Jacobian, shape ``(CK, B)``.

        Each position comes with every outcome of the discrete latents.
        """
        parts = self.outcomes.repeated(u).split([site.size for site in self._sites.values()], -1)
        found = [site.unpack(part) for site, part in zip(self._sites.values(), parts, strict=True)]
        values, log_dets = zip(*found, strict=True)
        return dict(zip(self._sites, values, strict=True)) | self.outcomes.values(len(u)), torch.stack(log_dets).sum(0)

    def has_supports_of(self, other: "UnconstrainedLatents") -> bool:
        """Return whether every latent has the support that it has in ``other``."""
        return all(_is_same(support, other.supports[name]) for name, support in self.supports.items())

    def require_fixed_supports(self, one: Trace, other: Trace, proposed: Trace) -> None:
        """Raise an InputError for latents whose support differs between traces of the model at other latents."""
        for name in self.supports:
            if not _is_same(*(_support(name, model, proposed) for model in (one, other))):
                raise _moving_support(name, one.nodes[name])


def _support(name: str, model: Trace, guide: Trace) -> Any:
    """The values that a latent can have: as its prior states them, or, where that does not, its proposal."""
    prior, proposal = model.nodes[name]["fn"], guide.nodes[name]["fn"]
    support = stated_support(prior) or stated_support(proposal)
    if support is None:
        raise InputError(
            f"the distribution of latent site {name!r}, {_family(prior)}, does not state its support, and neither does that "
            "of the guide, so that it is not known where chains may move; give one of them an attribute `support`, such as "
            "pyro.distributions.constraints.real_vector"
        )
    return support


def _all_discrete(sites: dict[str, Site]) -> InputError:
    families = ", ".join(f"{name!r} ({_family(site['fn'])})" for name, site in sites.items())
    return InputError(
        f"all latents are discrete: {families}; Hamiltonian transitions move along gradients; take log_likelihood"
    )


def _moving_support(name: str, site: Site) -> InputError:
    return InputError(
        f"what latent site {name!r} can be ({_family(site['fn'])}) depends on other latents, and chains need a support that "
        "stays; sample a latent of a fixed support, and shift and scale it by the others: w ~ Uniform(0, 1), "
        "z = low + (high - low) * w"
    )


def _site(name: str, support: Any, weights: LogWeights) -> UnconstrainedSite:
    try:
        return UnconstrainedSite(weights.model.nodes[name], support, weights.plates)
    except NotImplementedError as error:
        raise InputError(
            f"latent site {name!r} has the support {support}, which has no bijection to unconstrained space, so that "
            "Hamiltonian transitions cannot move in it; take log_likelihood"
        ) from error


def _family(distribution: Any) -> str:
    return type(base_distribution(distribution)).__name__


def _is_same(one: Any, other: Any) -> bool:
    """Whether two supports have the same values, at bounds that are numbers or tensors."""
    if isinstance(one, constraints.Constraint):
        return type(one) is type(other) and _is_same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one == other)
