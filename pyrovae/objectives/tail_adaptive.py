"""The tail-adaptive f-divergence."""

import torch
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.stop_gradient_densities import require_guide_stops, require_model_stops, stopped_density
from pyrovae.errors import InputError
from pyrovae.objectives.gradient_estimators import counted
from pyrovae.objectives.iwae import IWAE
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reparameterization import weigh_apart


class TailAdaptive(Objective):
    r"""The tail-adaptive f-divergence for the guide, IWAE for the model.

    The guide's gradient counts draws by powers of the rank of their weights, so that it covers the mass of the posterior as
    inverse divergences do, and has a finite variance however heavy the tail of the weights is:

    .. math::
        \varphi:\ \sum_k \rho_k\, \partial_z \log w_k\, \partial_\varphi z_k, \qquad
        \rho_k \propto \hat{\bar F}(w_k)^{\beta}, \quad \hat{\bar F}(w) = \frac1K \sum_j [w_j \ge w]

    with the density of :math:`q` in :math:`\log w` stopped: the largest weight counts most where :math:`\beta < 0`. The
    model climbs IWAE's bound, which is what is reported, shape ``(K, B) -> (B,)``, in nats.

    Args:
        num_particles: the number K of draws a datum, at least 2.
        tail_adaptive_beta: :math:`\beta`; at 0 the guide's gradient is the ELBO's.

    Raises:
        InputError: for fewer than two particles; for a site with a scale of its own; in training, for a guide that cannot
            be reparameterised.

    References:
        | Variational Inference with Tail-adaptive f-Divergence (Wang, Liu & Liu, 2018), algorithm 1
        | https://arxiv.org/abs/1810.11943
    """

    def __init__(self, num_particles: int = 10, tail_adaptive_beta: float = -1.0) -> None:
        super().__init__(num_particles)
        if num_particles == 1:
            raise InputError("num_particles is 1; TailAdaptive ranks draws, and needs at least 2")
        self.tail_adaptive_beta = tail_adaptive_beta
        self._iwae = IWAE(num_particles)

    def evaluate(self, call: Call) -> Evaluation:
        """Compute IWAE's bound, and the two gradients."""
        if not torch.is_grad_enabled():
            return self._iwae.evaluate(call)
        draws, weights, alive = weigh_apart(self, call)
        log_weights = weights.total.detach()
        of_model = counted(self._iwae.slopes(log_weights), weights.log_joint)
        shares = self.shares(log_weights).masked_fill(log_weights == -torch.inf, 0.0)  # no way back from a weight of zero
        of_guide = counted(shares, alive - stopped_density(call, draws, weights))
        return Evaluation(weights, self._iwae.value(log_weights), of_model + of_guide)

    def shares(self, log_weights: Tensor) -> Tensor:
        r"""Compute :math:`\rho`, shape ``(K, B)``, which sums to 1 over the draws."""
        tail = (log_weights[:, None] >= log_weights[None]).sum(0, dtype=log_weights.dtype) / len(log_weights)
        powers = tail**self.tail_adaptive_beta
        return powers / powers.sum(0)

    def examine_gradient(self, call: Call) -> None:
        """Raise an InputError where a parameter would escape being stopped, too."""
        super().examine_gradient(call)
        require_model_stops(call)
        require_guide_stops(call)
