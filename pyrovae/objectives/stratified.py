r"""Bounds from stratified draws: a finite choice in the guide is enumerated, not sampled.

The choice is the component of a mixture, or the value of a discrete site. Of C outcomes with probabilities :math:`\pi_c(x)`
each has K / C of the K draws, and each of these draws the share :math:`C \pi_c / K` in means over q. The gradient of
:math:`\pi` is then that of the shares, exact, and no draw carries it; the rest is reparameterised given the outcome.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import MixtureSameFamily

from pyrovae.engine.call import Call
from pyrovae.engine.particles import current_particle
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import counted
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reparameterization import require_reparameterized

SAMPLING = 'VIMCO, ReweightedWakeSleep or ELBO(estimator="score_function")'
"""The objectives that sample a discrete site of the guide, for the remedies of errors."""


class Stratified(Objective):
    """A bound made of the log weights and the shares of stratified draws; subclasses say which.

    A guide without a finite choice has one outcome, and its draws are plain.

    Args:
        num_particles: the number K of draws a datum, a multiple of the number C of outcomes.
    """

    def __init__(self, num_particles: int = 8) -> None:
        super().__init__(num_particles)

    @abstractmethod
    def value(self, log_weights: Tensor, log_shares: Tensor) -> Tensor:
        """Compute the bound, shapes ``(K, B), (K, B) -> (B,)``."""

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the bound, which is differentiated as it is."""
        with _GoneThrough():
            draws = call.draw()
        weights = call.weigh(draws)
        for name in weights.proposal_terms:
            self._require_one_choice(weights.guide.nodes[name])
        weights.require_densities(type(self).__name__)
        require_reparameterized(self, weights)
        bound = self.value(weights.total, self._log_shares(weights))
        return Evaluation(weights, bound, bound)

    def reparameterizes(self, site: Site) -> bool:
        """Return whether a draw carries a gradient: of a mixture the components count; a discrete site is enumerated."""
        if isinstance(site["fn"], MixtureSameFamily):
            return site["fn"].component_distribution.has_rsample
        return site["fn"].has_enumerate_support or super().reparameterizes(site)

    def reconstruction(self, weights: LogWeights) -> Tensor:
        """Compute the mean over q of the log likelihood."""
        return counted(self._log_shares(weights).exp(), weights.log_likelihood)

    def kl(self, weights: LogWeights) -> Tensor:
        """Estimate the KL, with each draw's share."""
        return counted(self._log_shares(weights).exp(), weights.log_proposal - weights.log_prior)

    def _require_one_choice(self, site: Site) -> None:
        """Raise an InputError where a site has several choices at once, a vector of them."""
        fn, base = site["fn"], base_distribution(site["fn"])
        if not site["is_observed"] and base.has_enumerate_support and not fn.has_enumerate_support:
            raise InputError(
                f"site {site['name']!r} of the guide is a vector of choices, each a {type(base).__name__}, and "
                f"{type(self).__name__} enumerates the outcomes of one choice per datum; make it one Categorical over all "
                f"combinations, or take {SAMPLING}, which sample it"
            )

    def _log_shares(self, weights: LogWeights) -> Tensor:
        r"""Compute :math:`\log (C \pi_c / K)` of the outcome that each draw has, shape ``(K, B)``."""
        sites = {name: weights.guide.nodes[name] for name in weights.proposal_terms}
        choices = {name: site for name, site in sites.items() if _is_choice(site)}
        if not choices:
            return torch.full_like(weights.total, -math.log(len(weights.total)))
        this = type(self).__name__
        if len(choices) > 1:
            raise InputError(
                f"the guide has a mixture or a discrete site at each of {', '.join(map(repr, choices))}, and {this} "
                f"enumerates the outcomes of one; take {SAMPLING}, which sample them, or a guide with one of them"
            )
        ((name, site),) = choices.items()
        log_probabilities = _log_probabilities(site)
        outcomes, particles = log_probabilities.shape[-1], len(weights.total)
        if particles % outcomes:
            raise InputError(
                f"num_particles is {particles}, and site {name!r} of the guide has {outcomes} outcomes; {this} gives each "
                f"as many particles: take a multiple of {outcomes}"
            )
        shares = _in_turn(log_probabilities, log_probabilities.dim() - 1) + math.log(outcomes / particles)
        if shares.numel() != weights.total.numel():
            raise InputError(
                f"site {name!r} of the guide is in a plate within the data plate, so that a datum has several outcomes at "
                f"once; take {SAMPLING}, which sample them"
            )
        return shares.reshape(weights.total.shape)


class SELBO(Stratified):
    r"""The evidence lower bound with a finite choice in the guide enumerated, not sampled.

    .. math::
        \mathcal L(x) = \sum_{c=1}^C \pi_c(x)\, E_{z \sim q_c(z \mid x)} [\log p(x, z) - \log q(z \mid x)]

    of each datum, in nats, estimated by K / C draws of each outcome (:mod:`pyrovae.objectives.stratified`): the ELBO without
    the noise of the choice. That is the component of a ``MixtureSameFamily``, which itself needs no reparameterisation, or
    the value of a discrete site, as Pyro's ``TraceEnum_ELBO`` enumerates it: where that is a label, it is the bound of
    unlabelled data of Kingma et al.

    Args:
        num_particles: the number K of draws a datum, a multiple of the number C of outcomes.

    Raises:
        InputError: for other numbers of particles, for a guide of several choices or with one in an inner plate, and where
            the rest cannot be reparameterised; for a site with a scale of its own.

    References:
        | Automatic Differentiation Variational Inference with Mixture Models (Morningstar et al., 2021)
        | https://arxiv.org/abs/2003.01687
        | Semi-Supervised Learning with Deep Generative Models (Kingma, Rezende, Mohamed & Welling, 2014), equation 7
        | https://arxiv.org/abs/1406.5298
    """

    def value(self, log_weights: Tensor, log_shares: Tensor) -> Tensor:
        """Average the log weights by their shares."""
        return counted(log_shares.exp(), log_weights)


class SIWAE(Stratified):
    r"""The importance-weighted bound with a finite choice in the guide enumerated, not sampled.

    .. math::
        \mathcal L_K(x) = E \Big[ \log \frac{C}{K} \sum_{t=1}^{K / C} \sum_{c=1}^C \pi_c(x)\,
        \frac{p(x, z_{tc})}{q(z_{tc} \mid x)} \Big] \le \log p(x), \qquad
        q(z \mid x) = \sum_c \pi_c(x)\, q_c(z \mid x), \quad z_{tc} \sim q_c(z \mid x)

    of each datum, in nats (:mod:`pyrovae.objectives.stratified`). The choice is the component of a ``MixtureSameFamily``,
    which itself needs no reparameterisation, or the value of a discrete site, whose probabilities then cancel and have no
    gradient. It is tighter than IWAE with K / C particles, and not always than IWAE with K, since here improbable outcomes
    have as many draws as others.

    Args:
        num_particles: the number K of draws a datum, a multiple of the number C of outcomes.

    Raises:
        InputError: for other numbers of particles, for a guide of several choices or with one in an inner plate, and where
            the rest cannot be reparameterised; for a site with a scale of its own.

    References:
        | Automatic Differentiation Variational Inference with Mixture Models (Morningstar et al., 2021), section 3
        | https://arxiv.org/abs/2003.01687
    """

    def value(self, log_weights: Tensor, log_shares: Tensor) -> Tensor:
        """Compute the logarithm of the mean of the weights by their shares."""
        return (log_weights + log_shares).logsumexp(0)


class _GoneThrough(Messenger):
    """A handler that, at a finite choice, takes the outcomes in turn along the particles, the outermost dimension."""

    def _pyro_sample(self, msg: Any) -> None:
        if not _is_choice(msg) or msg["done"]:
            return
        fn = msg["fn"]
        if isinstance(fn, MixtureSameFamily):
            components = fn.component_distribution
            values = components.rsample() if components.has_rsample else components.sample()
            msg["value"] = _of_particle(values, len(fn.batch_shape))
        else:
            msg["value"] = _of_particle(_outcomes(msg), 0)
        msg["done"] = True


def _is_choice(site: Site) -> bool:
    return not site["is_observed"] and (isinstance(site["fn"], MixtureSameFamily) or site["fn"].has_enumerate_support)


def _log_probabilities(site: Site) -> Tensor:
    """Compute the log probabilities of the outcomes, along the last dimension."""
    fn = site["fn"]
    if isinstance(fn, MixtureSameFamily):
        return fn.mixture_distribution.logits.log_softmax(-1)
    while isinstance(fn, MaskedDistribution):  # which hides the probabilities of what is drawn all the same
        fn = fn.base_dist
    return fn.log_prob(fn.enumerate_support()).movedim(0, -1)


def _of_particle(values: Tensor, dim: int) -> Tensor:
    """Select from outcomes along ``dim`` that of the running particle, or all in turn where particles run together."""
    particle = current_particle()
    if particle is None:
        return _in_turn(*((values.transpose(0, 1), 1) if dim == 0 else (values, dim)))
    return values.index_select(dim, (particle.to(values.device) % values.shape[dim]).reshape(1)).squeeze(dim)


def _outcomes(site: Site) -> Tensor:
    """Enumerate the values that a discrete site can have, along the first dimension."""
    try:
        return site["fn"].enumerate_support()
    except NotImplementedError as error:  # a Binomial with another number of trials for each datum, say
        raise InputError(
            f"the outcomes of site {site['name']!r} of the guide cannot be enumerated ({str(error).partition(chr(10))[0]}); "
            f"take {SAMPLING}, which sample them"
        ) from error


def _in_turn(values: Tensor, dim: int) -> Tensor:
    """Select for each row of the first dimension one outcome along ``dim``: the first, the second, and so on again."""
    rows = torch.arange(len(values), device=values.device)
    return values.movedim(dim, 1)[rows, rows % values.shape[dim]]
