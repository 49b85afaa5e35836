"""What a training run did: its metrics, epoch by epoch."""

import math
from dataclasses import dataclass, field

from pyrovae.objectives import ObjectiveModule


@dataclass(repr=False)
class History:
    """The metrics of a training run, epoch by epoch.

    Attributes:
        metrics: one dict an epoch: ``epoch``, the means over data ``train_bound``, ``train_reconstruction``, ``train_kl``,
            those of the objective's parts (``train_total_correlation``, say) and the same of ``validation``, all in nats a
            datum, ``learning_rate`` and ``seconds``.
        best_epoch: the epoch whose parameters the pair now has.
        seconds_to_first_step: from the end of the checks to the end of the first step: recording and fusing, mostly.
        module: the objective on the pair.
    """

    module: ObjectiveModule
    metrics: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds_to_first_step: float = math.nan

    def __repr__(self) -> str:
        last = (
            ", ".join(f"{name} {value:.4g}" for name, value in self.metrics[-1].items()) if self.metrics else "nothing yet"
        )
        return f"History({len(self.metrics)} epochs, the best {self.best_epoch}; the last: {last})"

    def best_of_all(self) -> int:
        """Return the epoch with the best validation bound, the first of equals; without validation the last one."""
        if not self.metrics or "validation_bound" not in self.metrics[-1]:
            return len(self.metrics)
        gains = [self.module.elbo.sign * epoch["validation_bound"] for epoch in self.metrics]
        return 1 + gains.index(max(gains))

    def last_is_best(self) -> bool:
        """Return whether the last epoch has the best validation bound so far; without validation the last is the best."""
        return self.best_of_all() == len(self.metrics)
