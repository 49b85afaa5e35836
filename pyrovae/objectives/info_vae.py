"""The InfoVAE objective: the ELBO with the maximum mean discrepancy of the aggregate posterior."""

import math

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.shapes import coordinates, per_datum
from pyrovae.engine.sites import Site
from pyrovae.engine.stop_gradient_programs import keeping_buffers
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reparameterization import require_reparameterized


class InfoVAE(Objective):
    r"""The InfoVAE objective: a part of the KL, and the discrepancy of the aggregate posterior from the prior.

    .. math::
        E_q[\log p(x \mid z)] - (1 - \alpha)\, KL(q(z \mid x) \,\|\, p(z)) - (\alpha + \lambda - 1)\, MMD^2(q(z), p(z)),
        \qquad q(z) = E_{p(x)}[q(z \mid x)]

    shape ``(K, B) -> (B,)``, in nats but for the squared maximum mean discrepancy, which lies between 0 and 2. With
    :math:`\alpha = 0, \lambda = 1` it is the ELBO; with :math:`\alpha = 1` there is no KL, as in a Wasserstein autoencoder.

    The discrepancy of :math:`z_b` drawn from the guide for each of B data and as many :math:`z'_b` drawn from the model,
    with the kernel :math:`k(z, z') = \exp(-\|z - z'\|^2 / 2 \sigma^2)`, is the mean over the batch of the shares

    .. math::
        \frac1{B - 1} \sum_{j \ne b} k(z_b, z_j) + k(z'_b, z'_j) - k(z_b, z'_j) - k(z_j, z'_b)

    which is unbiased, and so may be negative; the mean with the terms :math:`j = b` is not, and draws q(z) together. Of
    several particles each has a batch of its own, and the mean over particles is taken. Two draws of one datum are not
    independent draws of q(z), and never meet.

    The data of a batch are coupled: the value of a datum depends on the others, and its mean is an estimate for the batch.
    The model runs once more, with nothing observed, for the draws of the prior. A prior that learns has the gradient of the
    discrepancy too: through its draws, or, where these cannot be reparameterised, by the score function.

    Args:
        alpha: :math:`\alpha`, at most 1: the weight of the mutual information of x and z.
        weight: :math:`\lambda`, at least :math:`1 - \alpha`.
        num_particles: the number K of draws a datum.
        bandwidth: :math:`\sigma`; by default the square root of the number of z's coordinates, so that the kernel of two
            draws of a standard normal prior is about 1/e.

    Attributes:
        parts: ``mmd``: the shares, whose mean is the squared discrepancy.

    Raises:
        InputError: for a batch of a single datum; in training, for a guide that cannot be reparameterised; for weights that
            would reward the KL or the discrepancy.

    References:
        | InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao, Song & Ermon, 2019), equation 6
        | https://arxiv.org/abs/1706.02262
        | A Kernel Two-Sample Test (Gretton et al., 2012), equation 4; https://jmlr.org/papers/v13/gretton12a.html
    """

    parts = ("mmd",)
    coupled = True

    def __init__(
        self, alpha: float = 0.0, weight: float = 10.0, num_particles: int = 1, bandwidth: float | None = None
    ) -> None:
        super().__init__(num_particles)
        if not alpha <= 1.0:
            raise InputError(f"alpha is {alpha}, which would reward the KL; expected at most 1")
        if not weight >= 1.0 - alpha:
            raise InputError(
                f"weight is {weight}, which would reward the distance from the prior; expected at least 1 - alpha, "
                f"{1.0 - alpha:g}, at which the ELBO is left"
            )
        if bandwidth is not None and not bandwidth > 0.0:
            raise InputError(f"bandwidth is {bandwidth}; expected a positive number, or None for one that fits z")
        self.alpha = alpha
        self.weight = weight
        self.bandwidth = bandwidth

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the reconstruction minus the weighted KL and the weighted discrepancy."""
        weights = call.weigh(call.draw())
        require_reparameterized(self, weights)
        prior = keeping_buffers(call).simulate()
        names = [*weights.latent_terms]
        z, simulated = latent_vectors(weights.guide, names, weights), latent_vectors(prior, names, weights)
        pairs = self._pairs(z, simulated)
        mmd = _over_others(pairs.sum(0)).mean(0)
        factor = self.alpha + self.weight - 1.0
        bound = weights.log_likelihood.mean(0) - (1.0 - self.alpha) * self.kl(weights) - factor * mmd
        if not torch.is_grad_enabled():
            return Evaluation(weights, bound, bound, (mmd,))
        signals = 2.0 * _over_others(pairs[1] + pairs[3]).detach()
        score = (signals * _score(prior, names, weights)).mean(0)
        return Evaluation(weights, bound, bound - factor * score, (mmd,))

    def _pairs(self, z: Tensor, simulated: Tensor) -> Tensor:
        """Compute the four kernels of all pairs of data, signed, shape ``(K, B, D), (K, B, D) -> (4, K, B, B)``."""
        if z.shape[1] < 2:
            raise InputError(
                "the batch has a single datum, which says nothing of the distance of q(z) from the prior; InfoVAE needs at "
                "least 2 data in each batch: take another batch size, or BetaELBO, which takes each datum by itself"
            )
        across = self._kernel(z, simulated)
        return torch.stack([self._kernel(z, z), self._kernel(simulated, simulated), -across, -across.mT])

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the kernel of every pair, shape ``(K, B, D), (K, B, D) -> (K, B, B)``."""
        bandwidth = self.bandwidth or math.sqrt(max(a.shape[-1], 1))
        distances = (a[:, :, None] - b[:, None]).square().sum(-1)
        return (-distances / (2.0 * bandwidth**2)).exp()


def _over_others(pairs: Tensor) -> Tensor:
    """Average over the other data, shape ``(K, B, B) -> (K, B)``."""
    return (pairs.sum(-1) - pairs.diagonal(dim1=-2, dim2=-1)) / (pairs.shape[-1] - 1)


def _score(prior: Trace, names: list[str], weights: LogWeights) -> Tensor:
    r"""Compute :math:`\log p` of those latents whose draws carry no gradient, shape ``(K, B)``."""
    sites: list[Site] = [prior.nodes[name] for name in names if not prior.nodes[name]["fn"].has_rsample]
    terms = [
        per_datum(site["fn"].log_prob(site["value"].detach()), site, len(weights.total), weights.plates) for site in sites
    ]
    return sum(terms, torch.zeros_like(weights.total))


def latent_vectors(trace: Trace, names: list[str], weights: LogWeights) -> Tensor:
    """Join the latents of a trace at these sites to one vector for each particle and datum, shape ``(K, B, D)``."""
    sites: list[Site] = [trace.nodes[name] for name in names]
    vectors = [coordinates(site["value"], site, weights.plates) for site in sites]
    return torch.cat([weights.total.new_zeros(*weights.total.shape, 0), *vectors], -1)
