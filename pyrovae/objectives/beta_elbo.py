"""The evidence lower bound with a weighted KL."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyrovae.engine.call import Call
from pyrovae.engine.shapes import coordinates
from pyrovae.engine.sites import Site
from pyrovae.engine.supports import base_distribution
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.elbo import ELBO, has_formula, kl_terms, same_order
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reparameterization import require_reparameterized

FreeBitsPer = Literal["site", "dimension"]


class BetaELBO(Objective):
    r"""The evidence lower bound with a weighted KL, warm-up and free bits.

    .. math::
        E_q[\log p(x \mid z)] - \beta_t \sum_j \max(\lambda,\, E_{\text{batch}}[KL_j]), \qquad
        \beta_t = \beta \min(1, t / T)

    estimated with K particles, shape ``(K, B) -> (B,)``, in nats. With :math:`\beta = 1` and neither of the others it is
    the ELBO; with :math:`\beta > 1` it is a looser bound, with :math:`\beta < 1` or in warm-up it need not be one.

    In step :math:`t = 0, 1, \dots` of training (an evaluation with gradients, in training mode) the KL is weighted by
    :math:`\beta_t`, in the first not at all, after T steps by :math:`\beta`, as it is always in evaluation mode and without
    gradients, so that the validation bounds of two epochs can be compared. The count of steps is a buffer of ``state``, and
    so of the objective's module, which its ``state_dict``, the pair's weights, leaves out; another training run begins with
    another objective.

    Free bits are nats that a group j may spend on a datum, in the mean over the batch, at no cost. Where its mean is less,
    each of the data is charged :math:`\lambda`, so that the sum over the batch is the formula, and the data are coupled.

    The KL that is reported is neither weighted nor floored.

    Args:
        beta: :math:`\beta`.
        num_particles: the number K of draws a datum; more of them lower the variance, not the value.
        analytic_kl: take the KL from formulas where there are some, as :class:`ELBO` does; by default only where free bits
            per dimension need them, so that ``BetaELBO()`` is ``ELBO()``.
        warmup: the number T of steps; 0 for none.
        free_bits: :math:`\lambda`, in nats; 0 for none.
        free_bits_per: what a group is: ``site``, each latent site, or ``dimension``, each coordinate of each, those along
            inner plates too.

    Raises:
        InputError: in training, for a guide that cannot be reparameterised; with free bits, for programs in which a group
            has no KL of its own; for a negative number.

    References:
        | beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework (Higgins et al., 2017),
          equation 4; https://openreview.net/forum?id=Sy2fzU9gl
        | Warm-up: Generating Sentences from a Continuous Space (Bowman et al., 2016), section 3.1;
          https://arxiv.org/abs/1511.06349
        | Free bits: Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), equation 15;
          https://arxiv.org/abs/1606.04934
    """

    def __init__(
        self,
        beta: float = 1.0,
        num_particles: int = 1,
        analytic_kl: bool | None = None,
        warmup: int = 0,
        free_bits: float = 0.0,
        free_bits_per: FreeBitsPer = "site",
    ) -> None:
        super().__init__(num_particles)
        _require_not_negative(beta=beta, warmup=warmup, free_bits=free_bits)
        _require_groups(free_bits, free_bits_per, analytic_kl)
        by_dimension = free_bits > 0 and free_bits_per == "dimension"
        self.beta = beta
        self.warmup = warmup
        self.free_bits = free_bits
        self.free_bits_per: FreeBitsPer = free_bits_per
        self._elbo = ELBO(num_particles, by_dimension if analytic_kl is None else analytic_kl)
        self.state = _Steps() if warmup else None
        self.coupled = free_bits > 0

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the reconstruction minus the weighted KL."""
        weights = call.weigh(call.draw())
        require_reparameterized(self, weights)
        kl = self._floored(weights) if self.free_bits else self.kl(weights)
        bound = weights.log_likelihood.mean(0) - self._weight() * kl
        return Evaluation(weights, bound, bound)

    def kl(self, weights: LogWeights) -> Tensor:
        """Compute the KL without weight or floor, analytic where asked for and known."""
        return self._elbo.kl(weights)

    def _weight(self) -> float | Tensor:
        r"""Return :math:`\beta_t`, and count a step where this is one."""
        if self.state is None or not (self.state.training and torch.is_grad_enabled()):
            return self.beta
        return self.beta * (self.state() / self.warmup).clamp(max=1.0)

    def _floored(self, weights: LogWeights) -> Tensor:
        """Compute the KL with each group's mean over the batch at least the free bits, shape ``(B,)``."""
        _require_kl_of_each_site(weights)
        groups = [values.mean(0) for values in self._groups(weights)]
        terms = [torch.where(kl.mean(0) < self.free_bits, self.free_bits, kl).sum(-1) for kl in groups]
        return sum(terms, torch.zeros_like(weights.total[0]))

    def _groups(self, weights: LogWeights) -> list[Tensor]:
        """Compute the KL of the groups of each latent site, shape ``(K, B, number of groups)``."""
        if self.free_bits_per == "dimension":
            return [_kl_of_dimensions(name, weights) for name in weights.latent_terms]
        if self._elbo.analytic_kl:
            return [kl[..., None] for kl in kl_terms(weights).values()]
        return [(weights.proposal_terms[name] - latent)[..., None] for name, latent in weights.latent_terms.items()]


class _Steps(nn.Module):
    """A counter of steps."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)  # no weight of the pair's

    def forward(self) -> Tensor:
        """Count a step, and return the number of those before it."""
        before = self.count.clone()
        self.count.add_(1)
        return before


def _kl_of_dimensions(name: str, weights: LogWeights) -> Tensor:
    """Compute the KL of each coordinate of a latent site, shape ``(K, B, D)``."""
    q: Site = weights.guide.nodes[name]
    p: Site = weights.model.nodes[name]
    bases = base_distribution(q["fn"]), base_distribution(p["fn"])
    if not has_formula(name, weights) or any(base.event_shape for base in bases):
        raise _no_formula(name)
    try:
        return coordinates(kl_divergence(*bases), q, weights.plates)
    except NotImplementedError as error:  # torch has no formula for these two families
        raise _no_formula(name) from error


def _no_formula(name: str) -> InputError:
    return InputError(
        f"there is no formula for the KL of each dimension of site {name!r}: expected, in model and guide, families of "
        "independent scalars that torch.distributions.kl_divergence knows, neither scaled nor masked; take "
        'free_bits_per="site"'
    )


def _require_kl_of_each_site(weights: LogWeights) -> None:
    """Raise an InputError where the KL is not a sum of one for each latent site, given those before it."""
    for name in weights.proposal_terms:
        if name not in weights.latent_terms:
            raise InputError(
                f"site {name!r} of the guide is auxiliary, so that the latents have no KL of their own for free bits; take "
                "free_bits=0, or a guide that draws the latents alone"
            )
    if not same_order(weights):
        orders = [", ".join(map(repr, terms)) for terms in (weights.latent_terms, weights.proposal_terms)]
        raise InputError(
            f"the model draws its latents in the order {orders[0]}, the guide in the order {orders[1]}, so that no site has "
            "a KL of its own for free bits; draw them in one order, or take free_bits=0"
        )


def _require_groups(free_bits: float, free_bits_per: str, analytic_kl: bool | None) -> None:
    if free_bits_per not in get_args(FreeBitsPer):
        raise InputError(
            f"free_bits_per is {free_bits_per!r}; expected one of {', '.join(map(repr, get_args(FreeBitsPer)))}"
        )
    if free_bits and free_bits_per == "dimension" and analytic_kl is False:
        raise InputError(
            "free_bits_per is 'dimension', which takes the KL of each dimension from a formula, and analytic_kl is False; "
            'take analytic_kl=True, or free_bits_per="site"'
        )


def _require_not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= 0:
            raise InputError(f"{name} is {number}; expected a number of at least 0, where 0 is none")
