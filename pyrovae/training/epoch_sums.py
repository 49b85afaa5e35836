"""What the steps of an epoch add up where the parameters are, to be read when it is over."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrovae.objectives import Measurement, Objective
from pyrovae.runtime.processes import Processes
from pyrovae.training.means import number, sums


class Tally(NamedTuple):
    """Sums over the data of an epoch, and counts of its steps: scalars on the parameters' device, but for the sums.

    Attributes:
        sums: of bound, reconstruction, KL and the objective's parts over the data of finite steps, float64.
        steps: the number of steps whose loss and gradient were finite.
        failed: 1 where the last step's were not; in a run that such a step ends, 1 from then on, and no parameter moves.
        skipped: the number of steps that were left out.
        left_out: the number of data in them.
    """

    sums: Tensor
    steps: Tensor
    failed: Tensor
    skipped: Tensor
    left_out: Tensor

    @classmethod
    def zero(cls, objective: Objective, device: torch.device) -> "Tally":
        """Return the tally at the beginning of an epoch."""
        failed = torch.zeros((), dtype=torch.float32, device=device)  # what torch's fused kernels take it in
        steps, skipped, left_out = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))
        return cls(torch.zeros(number(objective), dtype=torch.float64, device=device), steps, failed, skipped, left_out)

    def clear(self) -> None:
        """Set everything to zero, in place."""
        for value in self:
            value.zero_()

    def add(self, measured: Measurement, finite: Tensor) -> None:
        """Add one step of a run that ends where one is not finite."""
        self.failed.copy_(torch.maximum(self.failed, (~finite).float()))
        self.steps.add_(1 - self.failed.long())
        self.sums.add_(sums(measured))

    def add_finite(self, measured: Measurement, finite: Tensor, data: int) -> None:
        """Add one step of so many data if it is finite, and else count it as skipped."""
        self.failed.copy_((~finite).float())
        self.steps.add_(finite.long())
        self.sums.add_(torch.where(finite, sums(measured), 0.0))
        self.skipped.add_((~finite).long())
        self.left_out.add_((~finite).long() * data)

    def add_accumulated(self, parts: "Tally", data: int, finite: bool) -> None:
        """Add one step of so many data, the sums over whose batches another tally has."""
        if finite:
            self.steps.add_(1)
            self.sums.add_(parts.sums)
        else:
            self.skipped.add_(1)
            self.left_out.add_(data)

    def state(self, processes: Processes) -> dict[str, Any]:
        """Return counts, and the sums of every process, for :meth:`restore`. All processes must call it."""
        counts = {"steps": int(self.steps), "skipped": int(self.skipped), "left_out": int(self.left_out)}
        return {**counts, "sums": torch.stack(processes.gather(self.sums.to("cpu", copy=True)))}

    def restore(self, state: dict[str, Any], processes: Processes) -> None:
        """Set what is zero to an earlier state: each process' own sums, or, where their number changed, all in the first."""
        if len(state["sums"]) == processes.number:
            self.sums.copy_(state["sums"][processes.rank])
        elif processes.rank == 0:
            self.sums.copy_(state["sums"].sum(0))
        for name in ("steps", "skipped", "left_out"):
            getattr(self, name).fill_(state[name])
