"""The total correlation variational autoencoder."""

import math
from itertools import combinations
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.shapes import coordinates
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.elbo import has_formula
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reparameterization import require_reparameterized


class TCVAE(Objective):
    r"""The total correlation variational autoencoder: the KL in three terms, each with a weight.

    .. math::
        E_q[\log p(x \mid z)] - \alpha\, I(x; z) - \beta\, KL\Big(q(z) \,\Big\|\, \prod_d q(z_d)\Big)
        - \gamma\, E_{q(z)}\Big[\sum_d \log q(z_d) - \log p(z)\Big], \qquad q(z) = E_{p(x)}[q(z \mid x)]

    shape ``(K, B) -> (B,)``, in nats. The three are the mutual information of datum and code, the total correlation, and,
    where the prior is independent over dimensions, the sum of KL from it dimension by dimension. They add up to the KL's
    Monte Carlo estimate exactly, so that with weights of 1 it is the ELBO.

    The densities of the aggregate posterior, :math:`q(z)` and :math:`q(z_d)` of one coordinate, are those of minibatch-
    weighted sampling: of a batch of M out of N data, for the draw :math:`z_i` of each datum i,

    .. math::
        \log q(z_i) \approx \log \frac1{N M} \sum_{j=1}^M q(z_i \mid x_j)

    which is biased. N shifts the reported terms by constants, the total correlation by :math:`\log N` for each coordinate
    but one, and has no gradient; with N = 1, the default, they are those of the batch as a population of its own. The data
    of a batch are coupled: the value of a datum depends on the others.

    A coordinate is one of the event of a latent site or along its inner plates, and the guide must give each of them a
    density given x alone: latent sites that are independent of each other, of independent scalars. The guide runs once.

    Args:
        alpha: weight of the mutual information.
        beta: weight of the total correlation.
        gamma: weight of the third term.
        num_particles: the number K of draws a datum; each is compared with the posteriors of all data in the batch.
        dataset_size: N, of which only the reported values are functions.

    Attributes:
        parts: the three terms.

    Raises:
        InputError: for a guide whose latents are dependent given x, or have no density of their own; in training, for one
            that cannot be reparameterised.

    References:
        | Isolating Sources of Disentanglement in Variational Autoencoders (Chen et al., 2018), equations 2 to 4
        | https://arxiv.org/abs/1802.04942
    """

    parts = ("mutual_information", "total_correlation", "dimension_wise_kl")
    coupled = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 1.0,
        num_particles: int = 1,
        dataset_size: int = 1,
    ) -> None:
        super().__init__(num_particles)
        if dataset_size < 1:
            raise InputError(f"dataset_size is {dataset_size}; expected at least 1, the default")
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.dataset_size = dataset_size

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the reconstruction minus the three weighted terms."""
        weights = call.weigh(call.draw())
        require_reparameterized(self, weights)
        information, correlation, dimensions = terms = self._terms(weights)
        bound = weights.log_likelihood.mean(0) - self.alpha * information - self.beta * correlation - self.gamma * dimensions
        return Evaluation(weights, bound, bound, terms)

    def examine(self, call: Call) -> None:
        """Raise an InputError where a site of the guide depends on another."""
        with _Followed():
            weights = call.weigh(call.draw())
        for earlier, later in combinations(weights.proposal_terms, 2):
            _require_independent(earlier, later, weights)

    def _terms(self, weights: LogWeights) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the three terms, each of shape ``(B,)``."""
        log_q = _of_all_pairs(weights)
        log_size = math.log(self.dataset_size) + math.log(log_q.shape[-2])
        joint = log_q.sum(-1).logsumexp(-1) - log_size
        marginals = (log_q.logsumexp(-2) - log_size).sum(-1)
        terms = weights.log_proposal - joint, joint - marginals, marginals - weights.log_prior
        information, correlation, dimensions = (term.mean(0) for term in terms)
        return information, correlation, dimensions


def _of_all_pairs(weights: LogWeights) -> Tensor:
    r"""Compute :math:`\log q(z_{kid} \mid x_j)` of every draw at every datum, shape ``(K, B, B, D)``, over k, i, j and d."""
    pairs = [_site_at_all(name, weights) for name in weights.proposal_terms]
    shape = weights.total.shape
    return torch.cat([weights.total.new_zeros(*shape, shape[1], 0), *pairs], -1)


def _site_at_all(name: str, weights: LogWeights) -> Tensor:
    """Compute that of one site, D being its coordinates: its distribution has j in its data plate, so i goes before all."""
    site: Site = weights.guide.nodes[name]
    base = _require_scalars(name, weights)
    data = next(frame.dim for frame in site["cond_indep_stack"] if frame.name == weights.plates.data)
    place = data - site["fn"].event_dim
    values = site["value"].movedim(place, 0).unsqueeze(place)
    log_q = base.log_prob(values)
    by_site = coordinates(log_q.flatten(0, 1), site, weights.plates)
    return by_site.unflatten(0, log_q.shape[:2]).transpose(0, 1)


def _require_scalars(name: str, weights: LogWeights) -> Any:
    """Return the distribution of a guide's coordinates; raise an InputError where they have no densities of their own."""
    site: Site = weights.guide.nodes[name]
    base: Any = base_distribution(site["fn"])
    if name not in weights.latent_terms:
        raise InputError(
            f"site {name!r} of the guide is auxiliary, so that the density of the latents given x is not known, which TCVAE "
            "is made of; take a guide that draws the latents alone, or BetaELBO"
        )
    if base.event_shape or not has_formula(name, weights):
        raise InputError(
            f"site {name!r} of the guide has no density for each coordinate ({type(base).__name__}, or a site that is "
            "scaled or masked), which TCVAE is made of; take independent scalars there, such as Normal(...).to_event(1), "
            "without poutine.scale and poutine.mask, or BetaELBO"
        )
    return base


class _Followed(Messenger):
    """A handler whose draws can be followed in the graph of derivatives, even if the guide has no parameters to train."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not msg["is_observed"] and value.is_floating_point() and not value.requires_grad:
            msg["value"] = value.clone().requires_grad_()


def _require_independent(earlier: str, later: str, weights: LogWeights) -> None:
    """Raise an InputError where a draw reaches the density of a later site."""
    site: Site = weights.guide.nodes[earlier]
    density = weights.proposal_terms[later].sum()
    if not (site["value"].requires_grad and density.requires_grad):  # whole numbers: nothing flows through them
        return
    (gradient,) = torch.autograd.grad(density, [site["value"]], allow_unused=True, retain_graph=True)
    if gradient is not None:
        raise InputError(
            f"site {later!r} of the guide depends on site {earlier!r}, so that it has no density given x alone, which TCVAE "
            "needs for its marginals; draw the latents independently given x, or take BetaELBO"
        )
