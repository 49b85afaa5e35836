"""The wake-sleep algorithm."""

import torch

from pyrovae.engine.call import Call
from pyrovae.engine.stop_gradient_draws import draw_stopped, require_density
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reweighted_wake_sleep import asleep


class WakeSleep(Objective):
    r"""The wake-sleep algorithm.

    .. math::
        \theta:\ \frac1K \sum_k \partial_\theta \log p(x, z_k),\ z_k \sim q(z \mid x), \qquad
        \varphi:\ \partial_\varphi \log q(z' \mid x'),\ x', z' \sim p

    The model climbs the ELBO, whose value is reported, shape ``(K, B) -> (B,)``, in nats. The guide does not: it fits the
    latents of data that the model dreams, which lowers :math:`KL(p(z \mid x) \,\|\, q(z \mid x))` in the mean over the
    model's own data. The draws are stopped, so that the guide may be discrete.

    Args:
        num_particles: the number K of draws a datum in the wake phase.

    Raises:
        InputError: for a model that cannot dream what it is called with; for a site with a scale of its own.

    References:
        | The "Wake-Sleep" Algorithm for Unsupervised Neural Networks (Hinton, Dayan, Frey & Neal, 1995)
        | https://doi.org/10.1126/science.7761831
    """

    def __init__(self, num_particles: int = 1) -> None:
        super().__init__(num_particles)

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the ELBO, and the gradients of the two phases."""
        weights = call.weigh(draw_stopped(call))
        weights.require_densities("WakeSleep")
        require_density(self, weights)
        bound = weights.total.mean(0).detach()
        if not torch.is_grad_enabled():
            return Evaluation(weights, bound, bound)
        return Evaluation(weights, bound, weights.log_joint.mean(0) + asleep(call, weights.plates))
