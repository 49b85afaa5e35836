"""An objective on a pair, as a module whose output is the loss."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrovae.compiling.recording_context import is_recording
from pyrovae.engine.call import Call
from pyrovae.engine.pair import Pair
from pyrovae.engine.weights import LogWeights
from pyrovae.objectives.measurement import Measurement
from pyrovae.runtime.parameters import Program

if TYPE_CHECKING:
    from pyrovae.objectives.objective import Objective


class ObjectiveModule(Pair):
    """An objective on a pair: ``module(x)`` is the loss, a scalar tensor; ``module.elbo`` is the objective."""

    def __init__(self, model: Program, guide: Program, objective: "Objective") -> None:
        super().__init__(model, guide)
        self.elbo = objective
        self._examined: set[tuple[bool, ...]] = set()
        if objective.state is not None:
            self.state = objective.state

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the loss: minus the bound, or plus an upper one, summed over the data, in nats."""
        return self.measure(*args, **kwargs).loss

    def start(self, *args: Any, **kwargs: Any) -> None:
        """Find plates and parameters, and let the objective examine the pair; the first call does it by itself."""
        super().start(*args, **kwargs)
        self._examined = set()
        self._examine(args, kwargs, gradient=False)
        if torch.is_grad_enabled():
            self.examine_gradient(*args, **kwargs)

    def examine_gradient(self, *args: Any, **kwargs: Any) -> None:
        """Raise an InputError where the objective has no right gradient on this pair in its mode, training or evaluation."""
        self._examine(args, kwargs, gradient=True)
        self._examined.add(self._plates_cache.modes)

    def _examine(self, args: tuple, kwargs: dict, gradient: bool) -> None:
        with self.opened() as (model, guide):
            call = Call(model, guide, args, kwargs, self.elbo.num_particles, self.plates)
            self.elbo.examine_all(call, gradient)

    def measure(self, *args: Any, **kwargs: Any) -> Measurement:
        """Compute the loss and, for each datum, bound, reconstruction, KL and the objective's other parts."""
        if not is_recording():
            self.ready(*args, **kwargs)
            if torch.is_grad_enabled() and self._plates_cache.modes not in self._examined:
                self.examine_gradient(*args, **kwargs)
        with self.opened() as (model, guide):
            return self.elbo.measure(model, guide, *args, plates=self.plates, **kwargs)

    def weights(self, *args: Any, **kwargs: Any) -> LogWeights:
        """Compute the log weights of the objective's number of particles."""
        return self.weigh(self.elbo.num_particles, *args, **kwargs)
