r"""A defensive mixture as proposal: mostly the guide, in part the guide widened, in part the prior.

.. math::
    q_\alpha(z \mid x) = \alpha_1\, q(z \mid x) + \alpha_2\, q_s(z \mid x) + \alpha_3\, p(z), \qquad
    \frac{p(x, z)}{q_\alpha(z \mid x)} \le \frac{p(x \mid z)}{\alpha_3}

so that where the likelihood is bounded the weights are too, and have all moments. The number of draws from each part is
fixed beforehand, which leaves the mean weight unbiased and takes variance away.

Sources: Hesterberg, Weighted Average Importance Sampling and Defensive Mixture Distributions (1995); Owen and Zhou, Safe and
Effective Importance Sampling (2000).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, distributions
from torch.distributions import Independent

from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.shapes import coordinates
from pyrovae.engine.sites import Site, density_sites, with_values
from pyrovae.engine.weights import LogWeights
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.parameters import Program

FEWEST = 10
"""Fewest draws made together, of which one is from the widened guide and one from the prior."""
_located = (distributions.Normal, distributions.Laplace, distributions.StudentT, distributions.Cauchy, dist.Logistic)


class DefensiveMixture:
    """The defensive mixture of a pair; a guide without any site of location and scale (flow, mixture) is not widened.

    Args:
        pair: the programs, started.
        batch: data to try them on.

    Raises:
        InputError: where the guide has sites that are no latents of the model, which the prior cannot draw, and where the
            prior is improper.
    """

    def __init__(self, pair: Pair, batch: Batch) -> None:
        self._pair = pair
        weights = pair.weigh(1, batch.x, **batch.given)
        weights.require_latents_alone("the prior cannot be a part of it; pass proposal='guide', or a guide without it")
        weights.require_proper_priors("cannot be a part of the mixture", 'pass proposal="guide"')
        sites: list[Site] = [weights.guide.nodes[name] for name in weights.latent_terms]
        dimensions = sum(coordinates(site["value"], site, weights.plates).shape[-1] for site in sites)
        self._factor = 1.0 + 1.0 / math.sqrt(dimensions)
        self._widens = any(widened(site["fn"], self._factor) is not None for site in sites)

    def weigh(self, particles: int, batch: Batch) -> LogWeights:
        """Draw from the mixture, part after part, and compute the log weights, without a check of the numbers."""
        with self._pair.opened() as (model, guide):
            call = Call(model, guide, (batch.x,), batch.given, particles, self._pair.plates)
            programs = [guide, *([_Wider(guide, self._factor)] if self._widens else [])]
            *of_guides, of_prior = counts = _counts(particles, len(programs) + 1)
            sizes = zip(programs, of_guides, strict=True)
            parts = [replace(call, guide=part, particles=count).draw() for part, count in sizes]
            draws = _joined(call, [*parts, replace(call, particles=of_prior).unguided()])
            model_trace = call.observe(draws)
            weights, *wider = (
                call.compose(model_trace, replace(call, guide=part).propose(draws)).with_proposal_density()
                for part in programs
            )
        densities = [weights.log_proposal, *(part.log_proposal for part in wider), weights.log_prior]
        shared = [density + math.log(count / particles) for density, count in zip(densities, counts, strict=True)]
        return replace(weights, proposal_terms={"the mixture": torch.stack(shared).logsumexp(0)})


def _counts(particles: int, parts: int) -> list[int]:
    """Divide draws among the parts, the guide's first: a tenth for each of the others."""
    others = [max(1, particles // FEWEST)] * (parts - 1)
    return [particles - sum(others), *others]


def _joined(call: Call, parts: Sequence[Trace]) -> Trace:
    """Join the values of all traces, one after another, in the first one, of the guide."""
    values: dict[str, Tensor] = {}
    for site in density_sites(prune_subsample_sites(parts[0])):
        drawn: list[Any] = [part.nodes[site["name"]]["value"] for part in parts]
        values[site["name"]] = torch.cat(drawn, -1 - call.nesting - site["fn"].event_dim)
    return with_values(parts[0], values)


class _Wider(Messenger):
    """A guide whose locations stay and whose scales are larger."""

    def __init__(self, guide: Program, factor: float) -> None:
        super().__init__()
        self._guide, self._factor = guide, factor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self:
            return self._guide(*args, **kwargs)

    def _pyro_sample(self, msg: Any) -> None:
        if (wide := widened(msg["fn"], self._factor)) is not None:
            msg["fn"] = wide


def widened(distribution: Any, factor: float) -> Any:
    """Multiply the scale of a distribution; None for one that has none."""
    if isinstance(distribution, Independent):
        base = widened(distribution.base_dist, factor)
        return None if base is None else dist.Independent(base, distribution.reinterpreted_batch_ndims)
    if isinstance(distribution, distributions.MultivariateNormal):
        return dist.MultivariateNormal(distribution.loc, scale_tril=factor * distribution.scale_tril)
    if isinstance(distribution, distributions.LowRankMultivariateNormal):
        parts = factor * distribution.cov_factor, factor**2 * distribution.cov_diag
        return dist.LowRankMultivariateNormal(distribution.loc, *parts)
    if isinstance(distribution, _located):
        given: dict[str, Any] = {name: getattr(distribution, name) for name in distribution.arg_constraints}
        given["scale"] = factor * distribution.scale
        return type(distribution)(**given)
    return None
