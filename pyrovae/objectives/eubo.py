"""The evidence upper bound."""

from typing import Literal

import torch
from torch import Tensor

from pyrovae.engine.call import Call
from pyrovae.engine.sleep_phase import dream
from pyrovae.engine.stop_gradient_densities import require_model_stops
from pyrovae.engine.stop_gradient_programs import stopping_model
from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives.measurement import Evaluation
from pyrovae.objectives.objective import Objective
from pyrovae.objectives.reparameterization import require_reparameterized
from pyrovae.objectives.thermodynamic_elbo import tilted_mean

Posterior = Literal["resampled", "simulated"]


class EUBO(Objective):
    r"""The evidence upper bound.

    .. math::
        \mathcal U(x) = E_{p(z \mid x)}[\log p(x, z) - \log q(z \mid x)]
        = \log p(x) + KL(p(z \mid x) \,\|\, q(z \mid x)) \ge \log p(x)

    of each datum, shape ``(K, B) -> (B,)``, in nats. It needs draws from the posterior, and there are two ways to them:

    ``resampled``
        the K draws of the guide with their normalised weights, :math:`\sum_k \tilde w_k \log w_k`. A bound in the limit of
        K only: at a finite K its mean is too low.
    ``simulated``
        the batch is replaced by data that the model dreams, whose latents are exact draws from the posterior. The mean over
        the batch is an upper bound at once, on :math:`\log p` of *dreamt* data: what it lacks against an ELBO of such data
        tells how good the guide is, and how far estimates on real data may be trusted. One draw a datum.

    It is meant for evaluation. As an objective it is lowered, and has a gradient for the guide alone.

    Args:
        num_particles: the number K of draws a datum; 1 for ``simulated``.
        posterior: where its draws come from.

    Raises:
        InputError: in training, if resampled, for a guide that cannot be reparameterised; for a site with a scale of its
            own; if simulated, for a model that cannot dream what it is called with.

    References:
        | Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo (Grosse, Ghahramani & Adams, 2015)
        | https://arxiv.org/abs/1511.02543
    """

    sign = -1

    def __init__(self, num_particles: int | None = None, posterior: Posterior = "resampled") -> None:
        if posterior not in ("resampled", "simulated"):
            raise InputError(f"posterior is {posterior!r}; expected 'resampled' or 'simulated'")
        default = 50 if posterior == "resampled" else 1
        super().__init__(default if num_particles is None else num_particles)
        if posterior == "simulated" and self.num_particles != 1:
            raise InputError(f"num_particles is {num_particles}; a dreamt datum has one exact draw of its latents: pass 1")
        self.posterior: Posterior = posterior

    def evaluate(self, call: Call) -> Evaluation:
        """Compute the bound, with a gradient for the guide alone."""
        weights = self._weigh(stopping_model(call))
        weights.require_densities("EUBO")
        bound = self.value(weights.total)
        return Evaluation(weights, bound, bound)

    def value(self, log_weights: Tensor) -> Tensor:
        """Compute the mean log weight, each draw counted by its normalised weight, shape ``(K, B) -> (B,)``."""
        return tilted_mean(log_weights, 1.0)

    def _weigh(self, call: Call) -> LogWeights:
        if self.posterior == "simulated":
            dreamt, draws = dream(call)
            return dreamt.weigh(draws)
        weights = call.weigh(call.draw())
        if torch.is_grad_enabled():
            require_reparameterized(self, weights)
        return weights

    def examine_gradient(self, call: Call) -> None:
        """Raise an InputError where a parameter of the model would escape being stopped, too."""
        super().examine_gradient(call)
        require_model_stops(call)
