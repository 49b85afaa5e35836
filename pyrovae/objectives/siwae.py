"""The importance-weighted bound from draws of every component of a mixture."""

import math
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import MixtureSameFamily

from pyrovae.errors import InputError
from pyrovae.objectives.objective import Evaluation, Objective, require_reparameterized
from pyrovae.objectives.power_mean import log_power_mean
from pyrovae.weights import Call, LogWeights, Site, base_distribution


class SIWAE(Objective):
    r"""The importance-weighted bound from draws that are stratified: as many of each component of the guide's mixture.

    .. math::
        \mathcal L_K(x) = E \Big[ \log \frac{C}{K} \sum_{t=1}^{K / C} \sum_{c=1}^C \pi_c(x)\,
        \frac{p(x, z_{tc})}{q(z_{tc} \mid x)} \Big] \le \log p(x), \qquad
        q(z \mid x) = \sum_c \pi_c(x)\, q_c(z \mid x), \quad z_{tc} \sim q_c(z \mid x)

    of each datum, in nats, from all K draws. How many draws a component has, which varies in IWAE, is fixed, so that the
    gradient of :math:`\pi` has no part in the draws: each is reparameterised as its component is. So it trains every
    ``MixtureSameFamily`` whose components are reparameterised. It is tighter than IWAE with K / C particles, and not always
    than IWAE with K, since here improbable components have as many draws as others. A guide without a mixture has one
    component, and this is IWAE.

    Reconstruction and KL are the means over q: each draw counts :math:`C \pi_c / K`.

    Args:
        num_particles: the number K of draws a datum, a multiple of the number C of components.

    Raises:
        InputError: for other numbers of particles, for a guide of several mixtures or with one in an inner plate, and where
            components cannot be reparameterised; for a site with a scale of its own.

    References:
        | Automatic Differentiation Variational Inference with Mixture Models (Morningstar et al., 2021), section 3
        | https://arxiv.org/abs/2003.01687
    """

    def __init__(self, num_particles: int = 8) -> None:
        super().__init__(num_particles)

    def evaluate(self, call: Call) -> Evaluation:
        """The bound, which is differentiated as it is."""
        with _Stratified():
            draws = call.draw()
        weights = call.weigh(draws)
        weights.require_densities("SIWAE")
        require_reparameterized(self, weights)
        bound = log_power_mean(weights.total + _log_shares(weights), 1.0)
        return Evaluation(weights, bound, bound)

    def reparameterizes(self, site: Site) -> bool:
        """Of a mixture the components count."""
        mixture = _mixture(site)
        return super().reparameterizes(site) if mixture is None else mixture.component_distribution.has_rsample

    def reconstruction(self, weights: LogWeights) -> Tensor:
        """The mean over q of the log likelihood."""
        return (_log_shares(weights).exp() * weights.observed).mean(0)

    def kl(self, weights: LogWeights) -> Tensor:
        """The estimate of the KL, with each draw's share."""
        return (_log_shares(weights).exp() * (weights.proposal - weights.latent)).mean(0)


class _Stratified(Messenger):
    """Draw, at a site with a mixture, the components in turn along the particles, the outermost dimension."""

    def _pyro_sample(self, msg: Any) -> None:
        mixture = _mixture(msg)
        if mixture is None or msg["done"] or msg["is_observed"]:
            return
        components = mixture.component_distribution
        values = components.rsample() if components.has_rsample else components.sample()
        msg["value"] = _in_turn(values, len(mixture.batch_shape))
        msg["done"] = True


def _mixture(site: Site) -> MixtureSameFamily | None:
    fn = base_distribution(site["fn"])
    return fn if isinstance(fn, MixtureSameFamily) else None


def _in_turn(values: Tensor, dim: int) -> Tensor:
    """Of each row of the first dimension one component, which lie along ``dim``: the first, the second, and so on again."""
    rows = torch.arange(len(values), device=values.device)
    return values.movedim(dim, 1)[rows, rows % values.shape[dim]]


def _log_shares(weights: LogWeights) -> Tensor:
    r""":math:`\log C \pi_c` of the component that each draw is of, shape ``(K, B)``."""
    sites = {name: weights.guide.nodes[name] for name in weights.proposal_terms}
    mixtures = {name: mixture for name, site in sites.items() if (mixture := _mixture(site)) is not None}
    if not mixtures:
        return torch.zeros_like(weights.total)
    if len(mixtures) > 1:
        raise InputError(
            f"the guide has mixtures at the sites {', '.join(map(repr, mixtures))}, and SIWAE draws the components of one "
            "in turn; take IWAE, or a guide with one of them"
        )
    ((name, mixture),) = mixtures.items()
    logits = mixture.mixture_distribution.logits.log_softmax(-1)
    components, particles = logits.shape[-1], len(weights.total)
    if particles % components:
        raise InputError(
            f"num_particles is {particles}, and the mixture at site {name!r} of the guide has {components} components; "
            "SIWAE draws each as often: take a multiple"
        )
    shares = math.log(components) + _in_turn(logits, logits.dim() - 1)
    if shares.numel() != weights.total.numel():
        raise InputError(
            f"the mixture at site {name!r} of the guide is in a plate within the data plate, so that a datum has several "
            "components at once; take IWAE, or to_event(1) in the place of that plate"
        )
    return shares.reshape(weights.total.shape)
