"""The evidence lower bound."""

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import kl_divergence

from pyrovae.engine.call import Call
from pyrovae.engine.shapes import per_datum
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution, is_masked
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import Estimator
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.power_mean import PowerMean
from pyrovae.objectives.reparameterization import require_reparameterized


class ELBO(PowerMean):
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
        estimator: of the gradient (:mod:`pyrovae.objectives.gradient_estimators`); ``reparameterized`` with ``analytic_kl``.

    Raises:
        InputError: in training, for a guide that the estimator cannot differentiate; for another estimator with
            ``analytic_kl``.

    References:
        | Auto-Encoding Variational Bayes (Kingma & Welling, 2014), equations 2, 3, 6 and 7
        | https://arxiv.org/abs/1312.6114
    """

    def __init__(self, num_particles: int = 1, analytic_kl: bool = False, estimator: Estimator = "reparameterized") -> None:
        if analytic_kl and estimator != "reparameterized":
            raise InputError(
                f"estimator is {estimator!r}, which is made of log weights, and analytic_kl=True puts a formula in the "
                'place of a part of these; take estimator="reparameterized", or analytic_kl=False'
            )
        super().__init__(num_particles, 1, estimator)
        self.analytic_kl = analytic_kl

    @property
    def power(self) -> float:
        return 0.0

    def check(self, weights: LogWeights) -> None:
        """Raise an InputError for a site with a scale of its own, unless densities are only added up."""
        if self.estimator in ("score_function", "resampled"):
            super().check(weights)

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the mean of log w over particles, with the analytic KL in its place where asked for."""
        if not self.analytic_kl:
            return super().evaluate(call)
        weights = call.weigh(call.draw())
        require_reparameterized(self, weights)
        bound = weights.log_likelihood.mean(0) - self.kl(weights)
        return Evaluation(weights, bound, bound)

    def kl(self, weights: LogWeights) -> Tensor:
        """Compute the KL, analytic where asked for and known."""
        if not self.analytic_kl:
            return super().kl(weights)
        return sum(kl_terms(weights).values(), torch.zeros_like(weights.log_likelihood)).mean(0)


def kl_terms(weights: LogWeights) -> dict[str, Tensor]:
    """Compute the KL at each site, shape ``(K, B)``, by name: analytic where there is a formula, else a draw of it.

    They add up to ``log q(z | x) - log p(z)`` in the mean over draws.
    """
    terms = _analytic_kls(weights)
    for name in [*weights.latent_terms, *weights.proposal_terms]:
        if name not in terms:
            terms[name] = weights.proposal_terms.get(name, 0.0) - weights.latent_terms.get(name, torch.zeros(()))
    return terms


def _analytic_kls(weights: LogWeights) -> dict[str, Tensor]:
    """Compute ``KL(q || p)`` of each latent site for which there is a formula, shape ``(K, B)``, by name."""
    if not same_order(weights):
        return {}
    kls = {name: _analytic_kl(name, weights) for name in weights.latent_terms}
    return {name: kl for name, kl in kls.items() if kl is not None}


def same_order(weights: LogWeights) -> bool:
    """Return whether both programs draw their latents in one order, so that each site's KL is given the same others."""
    return [*weights.latent_terms] == [name for name in weights.proposal_terms if name in weights.latent_terms]


def _analytic_kl(name: str, weights: LogWeights) -> Tensor | None:
    q: Site = weights.guide.nodes[name]
    p: Site = weights.model.nodes[name]
    if not has_formula(name, weights):
        return None
    try:
        kl = kl_divergence(q["fn"], p["fn"])
    except NotImplementedError:  # torch has no formula for these two families
        return None
    return per_datum(kl, q, len(weights.total), weights.plates)


def has_formula(name: str, weights: LogWeights) -> bool:
    """Return whether an analytic KL at a site depends on the two families alone: no scale, no mask, no Delta."""
    q: Site = weights.guide.nodes[name]
    p: Site = weights.model.nodes[name]
    delta = isinstance(base_distribution(q["fn"]), Delta)  # Pyro's formula for it forgets its log_density
    return not (name in weights.rescaled or is_masked(q) or is_masked(p) or delta)
