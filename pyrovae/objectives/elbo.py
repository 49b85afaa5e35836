"""The evidence lower bound."""

import torch
from pyro.distributions import Delta, MaskedDistribution
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyrovae.objectives.objective import Objective
from pyrovae.weights import LogWeights, Site, per_datum


class ELBO(Objective):
    r"""The evidence lower bound, reconstruction minus KL.

    .. math::
        \mathcal L(x) = E_{q(z \mid x)}[\log p(x, z) - \log q(z \mid x)]
        = E_q[\log p(x \mid z)] - KL(q(z \mid x) \,\|\, p(z)) \le \log p(x)

    estimated by the mean over particles of :math:`\log w`, shape ``(K, B) -> (B,)``, in nats.

    With ``analytic_kl`` the KL of every latent site whose pair of distributions torch has a formula for is that formula
    (given the other latents drawn), and the rest, among it every masked or rescaled site, stays Monte Carlo. The formula
    holds only where both programs draw their latents in the same order; where they do not, all of it stays Monte Carlo.

    Args:
        num_particles: the number :math:`K` of draws a datum; more of them lower the variance, not the value.
        analytic_kl: take the KL from formulas where there are some.

    Raises:
        InputError: in training, for a guide that cannot be reparameterised.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), equations 3 and 7
        | https://arxiv.org/abs/1312.6114
    """

    def __init__(self, num_particles: int = 1, analytic_kl: bool = False) -> None:
        super().__init__(num_particles)
        self.analytic_kl = analytic_kl

    def bound(self, weights: LogWeights) -> Tensor:
        """The mean of log w over particles, with the analytic KL in its place where asked for."""
        if not self.analytic_kl:
            return weights.total.mean(0)
        return weights.observed.mean(0) - self.kl(weights)

    def kl(self, weights: LogWeights) -> Tensor:
        """The KL, analytic where asked for and known."""
        if not self.analytic_kl:
            return super().kl(weights)
        analytic = _analytic_kls(weights)
        sampled = [term for name, term in weights.proposal_terms.items() if name not in analytic]
        sampled += [-term for name, term in weights.latent_terms.items() if name not in analytic]
        return sum([*analytic.values(), *sampled], torch.zeros_like(weights.observed)).mean(0)


def _analytic_kls(weights: LogWeights) -> dict[str, Tensor]:
    """``KL(q || p)`` of each latent site for which there is a formula, shape ``(K, B)``, by name."""
    if [*weights.latent_terms] != [name for name in weights.proposal_terms if name in weights.latent_terms]:
        return {}
    kls = {name: _analytic_kl(name, weights) for name in weights.latent_terms}
    return {name: kl for name, kl in kls.items() if kl is not None}


def _analytic_kl(name: str, weights: LogWeights) -> Tensor | None:
    q: Site = weights.guide.nodes[name]
    p: Site = weights.model.nodes[name]
    if name in weights.rescaled or _is_masked(q) or _is_masked(p) or isinstance(_base(q["fn"]), Delta):
        return None  # Pyro's formula for a Delta forgets its log_density
    try:
        kl = kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:  # torch has no formula for these two families
        return None
    return per_datum(kl, q, len(weights.total), weights.plates)


def _is_masked(site: Site) -> bool:
    return site["mask"] is not None or isinstance(_base(site["fn"]), MaskedDistribution)


def _base(distribution: Distribution) -> Distribution:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution
