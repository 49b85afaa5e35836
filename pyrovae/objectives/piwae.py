"""The partially importance-weighted objective: IWAE for the model, MIWAE for the guide."""

import torch

from pyrovae.engine.call import Call
from pyrovae.engine.stop_gradient_densities import require_guide_stops, require_model_stops, stopped_density
from pyrovae.objectives.gradient_estimators import counted
from pyrovae.objectives.iwae import IWAE
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.miwae import MIWAE
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.power_mean import require_groups
from pyrovae.objectives.reparameterization import weigh_apart


class PIWAE(Objective):
    r"""IWAE of all particles for the model, MIWAE of the same ones for the guide.

    .. math::
        \theta:\ \log \frac1{M K} \sum_{m, k} w_{mk}, \qquad
        \varphi:\ \frac1M \sum_m \log \frac1K \sum_k w_{mk}

    so that the model has the tightest bound that M K particles give, and the guide's gradient keeps its signal-to-noise
    ratio. What is reported is the first, shape ``(M K, B) -> (B,)``, in nats.

    Args:
        num_groups: the number M of bounds that are averaged for the guide.
        group_size: the number K of draws in each.
        doubly_reparameterized: estimate the guide's gradient by ``dreg`` (:mod:`pyrovae.objectives.gradient_estimators`).

    Raises:
        InputError: in training, for a guide that cannot be reparameterised; for a site with a scale of its own.

    References:
        | Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018)
        | https://arxiv.org/abs/1802.04537
    """

    def __init__(self, num_groups: int = 4, group_size: int = 5, doubly_reparameterized: bool = False) -> None:
        require_groups("PIWAE", num_groups, group_size)
        self._of_guide = MIWAE(num_groups, group_size)
        super().__init__(self._of_guide.num_particles)
        self._of_model = IWAE(self.num_particles)
        self.doubly_reparameterized = doubly_reparameterized

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the bound of the model, and the two gradients."""
        if not torch.is_grad_enabled():
            return self._of_model.evaluate(call)
        draws, weights, alive = weigh_apart(self, call)
        log_weights = weights.total.detach()
        of_model = counted(self._of_model.slopes(log_weights), weights.log_joint)
        if self.doubly_reparameterized:
            proposal, slopes = stopped_density(call, draws, weights), self._of_guide.doubly_reparameterized(log_weights)
        else:
            proposal, slopes = weights.log_proposal, self._of_guide.slopes(log_weights)
        surrogate = of_model + counted(slopes, alive - proposal)
        return Evaluation(weights, self._of_model.value(log_weights), surrogate)

    def examine_gradient(self, call: Call) -> None:
        """Raise an InputError where a parameter would escape being stopped, too."""
        super().examine_gradient(call)
        require_model_stops(call)
        if self.doubly_reparameterized:
            require_guide_stops(call)
