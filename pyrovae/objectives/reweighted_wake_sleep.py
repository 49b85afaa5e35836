"""The reweighted wake-sleep algorithm."""

import torch

from pyrovae.engine.call import Call
from pyrovae.engine.plates import Plates
from pyrovae.engine.sleep_phase import dream
from pyrovae.engine.stop_gradient_draws import draw_stopped, require_density
from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import counted
from pyrovae.objectives.iwae import IWAE
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective


class ReweightedWakeSleep(Objective):
    r"""The reweighted wake-sleep algorithm.

    With normalised weights :math:`\tilde w_k` of K draws of the guide, for each datum by itself, the model climbs IWAE's
    bound, and the guide fits the posterior that these draws tell of (wake) or the latents of data that the model dreams
    (sleep), or both:

    .. math::
        \theta:\ \sum_k \tilde w_k\, \partial_\theta \log p(x, z_k), \qquad
        \varphi:\ \lambda \sum_k \tilde w_k\, \partial_\varphi \log q(z_k \mid x)
        + (1 - \lambda)\, \partial_\varphi \log q(z' \mid x'), \quad x', z' \sim p

    The draws are stopped, so that the guide may be discrete. What is reported is IWAE's bound, shape ``(K, B) -> (B,)``, in
    nats; the guide does not climb it.

    Args:
        num_particles: the number K of draws a datum, for the wake phases at least 2.
        insomnia: :math:`\lambda`, the part of the wake phase in the guide's gradient.

    Raises:
        InputError: for a site with a scale of its own; with a sleep phase, for a model that cannot dream what it is called
            with; for an insomnia outside [0, 1].

    References:
        | Reweighted Wake-Sleep (Bornschein & Bengio, 2015); https://arxiv.org/abs/1406.2751
        | Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow (Le et al., 2019);
          https://arxiv.org/abs/1805.10469
    """

    def __init__(self, num_particles: int = 5, insomnia: float = 1.0) -> None:
        super().__init__(num_particles)
        if not 0.0 <= insomnia <= 1.0:
            raise InputError(f"insomnia is {insomnia}; expected a number from 0 (sleep phase only) to 1 (no sleep phase)")
        if num_particles == 1 and insomnia > 0.0:
            raise InputError(
                "num_particles is 1, and the normalised weight of a single draw is always 1; the wake phase of the guide "
                "needs at least 2: take more, or insomnia=0"
            )
        self.insomnia = insomnia
        self._iwae = IWAE(num_particles)

    def evaluate(self, call: Call) -> Evaluation:
        """Compute IWAE's bound, and the gradients of the phases."""
        weights = call.weigh(draw_stopped(call))
        weights.require_densities("ReweightedWakeSleep")
        require_density(self, weights)
        log_weights = weights.total.detach()
        bound = self._iwae.value(log_weights)
        if not torch.is_grad_enabled():
            return Evaluation(weights, bound, bound)
        wake = weights.log_joint + self.insomnia * weights.log_proposal
        surrogate = counted(log_weights.softmax(0), wake)
        if self.insomnia < 1.0:
            surrogate = surrogate + (1.0 - self.insomnia) * asleep(call, weights.plates)
        return Evaluation(weights, bound, surrogate)


def asleep(call: Call, plates: Plates) -> torch.Tensor:
    r"""Compute :math:`\log q(z' \mid x')` of one dreamt datum for each of the batch, shape ``(B,)``."""
    dreamt, draws = dream(call)
    return dreamt.density(draws, plates)[0]
