"""How far an epoch is: the batches that are done, the sums over their data, and whether the run is to stop."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from pyrovae.objectives import Objective
from pyrovae.runtime.processes import Processes
from pyrovae.training.ema import Averages
from pyrovae.training.epoch_sums import Tally
from pyrovae.training.means import Means


class Done(NamedTuple):
    """What was done at once: so many batches, with so many data in all processes together."""

    batches: int
    data: int


class StopRequest:
    """A wish to stop, which all processes learn of with the next step.

    Attributes:
        wished: whether this process wishes to stop.
        agreed: whether a process wished to before the last step; the same in all of them after each step.
    """

    def __init__(self, processes: Processes) -> None:
        self.wished = self.agreed = False
        self._alone = processes.number == 1

    def request(self) -> None:
        """Ask all processes to stop; one that is alone need not wait for a step."""
        self.wished = True
        self.agreed |= self._alone


class Progress:
    """Progress of an epoch: batches that are done, sums over their data, and the averages of the parameters.

    Args:
        tally: sums over the data of the epoch.
        averages: of the parameters, where they are kept.
        processes: those that train together.

    Attributes:
        between: called between steps: after each, or, where steps are replayed, after 128.
        done: the number of batches done in this epoch.
    """

    def __init__(self, tally: Tally, averages: Averages | None, processes: Processes) -> None:
        self.between: Callable[[], None] = lambda: None
        self.done = 0
        self.tally = tally
        self._averages = averages
        self._processes = processes
        self._restored: dict[str, Any] | None = None

    @property
    def next_batch(self) -> int:
        """The number of the batch with which the next epoch begins, or goes on, the first one being 0."""
        return self._restored["done"] if self._restored else 0

    @property
    def skipped(self) -> int:
        """The number of steps of this epoch, or the last, that were skipped."""
        return int(self.tally.skipped)

    def begin(self) -> None:
        """Begin an epoch, or take up the one that was restored."""
        self.tally.clear()
        self.done = self.next_batch
        if self._restored is not None:
            self.tally.restore(self._restored, self._processes)
            self._restored = None

    def follow(self, steps: Iterable[Done]) -> int:
        """Let steps run to the end of the epoch, and return the number of their data."""
        data = 0
        for done in steps:
            data += done.data
            self.advance(done.batches)
        return data

    def advance(self, batches: int) -> None:
        """Count batches as done, and call ``between``."""
        self.done += batches
        self.between()

    def means(self, objective: Objective, data: int, device: torch.device) -> Means:
        """Return the means over the data of all processes, but for those that were left out."""
        means = Means(objective, device)
        means.sums, means.count = self.tally.sums.clone(), data - int(self.tally.left_out)
        self._processes.sum(means.sums)
        return means

    def state(self) -> dict[str, Any]:
        """Return how far this epoch is, and the averages, for :meth:`restore`. All processes must call it."""
        averages = {} if self._averages is None else self._averages.state()
        return {"done": self.done, **self.tally.state(self._processes), "averages": averages}

    def restore(self, state: dict[str, Any]) -> None:
        """Let the next epoch go on within the one of an earlier :meth:`state`, and the averages too.

        Raises:
            InputError: where the averages are not those of this run's parameters.
        """
        self.restore_averages(state)
        self._restored = state

    def restore_averages(self, state: dict[str, Any]) -> None:
        """Set the averages alone to an earlier state, as at the end of an epoch; the same errors."""
        if self._averages is not None:
            self._averages.restore(state["averages"])
