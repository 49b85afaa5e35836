r"""The log importance weights with their terms, made of the traces of model and guide.

.. math::
    \log w_{kb} = \log p(x_b, z_{kb}) - \log q(z_{kb} \mid x_b), \qquad z_{kb} \sim q(z \mid x_b)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Self

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.densities import UNSCALED, data_scale, own_scale, term_of_site
from pyrovae.engine.plates import Plates, data_frame
from pyrovae.engine.shapes import numbers_per_run
from pyrovae.engine.sites import Site, density_sites, latent_sites, observed_sites
from pyrovae.engine.supports import is_discrete, is_improper, is_masked
from pyrovae.errors import InputError


@dataclass(frozen=True)
class LogWeights:
    r"""The log importance weights with their terms, :math:`\log w = \log p(z) + \log p(x \mid z) - \log q(z \mid x)`.

    Attributes:
        latent_terms: :math:`\log p` of each latent site of the model, by name; each of shape ``(K, B)``.
        observed_terms: :math:`\log p` of each observed site (and ``pyro.factor``) of the model.
        proposal_terms: :math:`\log q` of each site of the guide.
        scale: full size over subsample size of the data plate; not contained in the terms.
        rescaled: names of sites with another scale (``poutine.scale``, a subsampled inner plate), which *is* contained.
        plates: where the data lie in the traces.
        model: the model's trace, replayed against the guide's.
        guide: the guide's trace; values have shape ``(K, ..., B, *event_shape)``.
    """

    latent_terms: Mapping[str, Tensor]
    observed_terms: Mapping[str, Tensor]
    proposal_terms: Mapping[str, Tensor]
    scale: float | Tensor
    rescaled: tuple[str, ...]
    plates: Plates
    model: Trace
    guide: Trace

    @property
    def log_prior(self) -> Tensor:
        r""":math:`\log p(z)`, shape ``(K, B)``."""
        return _sum(self.latent_terms) if self.latent_terms else torch.zeros_like(self.log_likelihood)

    @property
    def log_likelihood(self) -> Tensor:
        r""":math:`\log p(x \mid z)`, shape ``(K, B)``."""
        return _sum(self.observed_terms) if self.observed_terms else torch.zeros_like(self.log_prior)

    @property
    def log_proposal(self) -> Tensor:
        r""":math:`\log q(z \mid x)`, shape ``(K, B)``."""
        return _sum(self.proposal_terms) if self.proposal_terms else torch.zeros_like(self.log_likelihood)

    @property
    def log_joint(self) -> Tensor:
        r""":math:`\log p(x, z)`, shape ``(K, B)``."""
        return self.log_prior + self.log_likelihood

    @property
    def total(self) -> Tensor:
        r""":math:`\log w`, shape ``(K, B)``."""
        return self.log_joint - self.log_proposal

    @property
    def discrete_dimensions(self) -> int | None:
        """Number of scalars per datum if all are observed and discrete, so that :math:`p(x)` is a probability; else None."""
        sites = observed_sites(self.model)
        if not all(is_discrete(site) and not is_masked(site) for site in sites):
            return None
        return sum(numbers_per_run(site) // data_frame(site, self.plates.data).size for site in sites)

    @property
    def discrete_latents(self) -> bool:
        """Whether a latent of the model is discrete, so that the guide may never draw a value that matters."""
        return any(is_discrete(self.model.nodes[name]) for name in self.latent_terms)

    def require_numbers(self) -> None:
        """Raise an InputError that names the site and the datum where a weight is not a number."""
        for program, name, term in self.terms():
            if term.isnan().any():
                raise InputError(_not_a_number(program, name, term))

    def require_densities(self, what: str) -> None:
        """Raise an InputError where a site's density is scaled, so that ``what`` would not be made of densities."""
        if self.rescaled:
            raise InputError(
                f"site {self.rescaled[0]!r} carries a scale of its own (poutine.scale, or a subsampled plate inside the "
                f"data plate), so that exp(log w) is not a ratio of densities; {what} needs unscaled densities: "
                "remove the scale, or use ELBO, which is linear in it"
            )

    def with_proposal_density(self) -> Self:
        r"""Weights with the density of the guide's draws as the only proposal terms, so that they estimate :math:`p(x)`.

        An observed site or a ``pyro.factor`` in the guide is a term that an objective may have, and no density of a latent.
        """
        density = {name: term for name, term in self.proposal_terms.items() if not self.guide.nodes[name]["is_observed"]}
        return replace(self, proposal_terms=density)

    def require_latents_alone(self, why: str) -> None:
        """Raise an InputError where the guide draws something beside the latents of the model, so that ``why``."""
        if beside := sorted(set(self.proposal_terms) - set(self.latent_terms)):
            raise InputError(f"site {beside[0]!r} of the guide is not a latent site of the model, so that {why}")

    def require_proper_priors(self, why: str, remedy: str) -> None:
        """Raise an InputError for a latent whose prior is improper, so that ``why``."""
        for name in self.latent_terms:
            if is_improper(self.model.nodes[name]):
                raise InputError(
                    f"the prior of latent site {name!r} is improper, so that it has no draws and {why}; {remedy}"
                )

    def terms(self) -> Iterator[tuple[str, str, Tensor]]:
        """Every term with its program, ``model`` or ``guide``, and its site's name; the guide's come first, as it runs."""
        yield from (("guide", name, term) for name, term in self.proposal_terms.items())
        yield from (("model", name, term) for name, term in self.latent_terms.items())
        yield from (("model", name, term) for name, term in self.observed_terms.items())


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    return reduce(add, terms.values())


def _not_a_number(program: str, name: str, term: Tensor) -> str:
    datum = int(term.isnan().any(0).nonzero()[0])
    return (
        f"the log density of site {name!r} in the {program} is NaN for {int(term.isnan().sum())} of "
        f"{term.numel()} weights (the first at datum {datum}); look at the parameters of its distribution and at its "
        "value there: a smaller learning rate or a lower bound on scales is the usual remedy"
    )


def weights_of_traces(model: Trace, guide: Trace, particles: int, plates: Plates) -> LogWeights:
    """Compose the log weights of the traces of model and guide."""
    sites = [*latent_sites(model, guide), *observed_sites(model), *density_sites(guide)]
    residuals = {id(site): own_scale(site, plates) for site in sites}

    def terms(group: list[Site]) -> dict[str, Tensor]:
        return {site["name"]: term_of_site(site, particles, plates, residuals[id(site)]) for site in group}

    return LogWeights(
        latent_terms=terms(latent_sites(model, guide)),
        observed_terms=terms(observed_sites(model)),
        proposal_terms=terms(density_sites(guide)),
        scale=data_scale(sites[0], plates),
        rescaled=tuple(site["name"] for site in sites if residuals[id(site)] is not UNSCALED),
        plates=plates,
        model=model,
        guide=guide,
    )
