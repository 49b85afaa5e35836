r"""The gradient of a step to which several batches, or several processes, each add a part."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrovae.runtime.processes import Processes
from pyrovae.training.batch_gradient import Gradients


class GradientSum:
    r"""Gradient of the mean loss over all the data of a step, as the sum over its parts.

    .. math::
        \nabla \frac1N \sum_{i=1}^N \ell_i = \frac1N \sum_s N_s\, \nabla \ell_s, \qquad N = \sum_s N_s

    of which part s, with its mean loss :math:`\ell_s` over :math:`N_s` data, is one batch, or a process' share of one. The
    parts are added up in memory of the size of one gradient, a flat tensor for each type of parameters, and the processes'
    sums in one exchange of it. With them travel two flags, and which parameters have a gradient at all.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], processes: Processes) -> None:
        self._processes = processes
        self._present = [False] * len(parameters)
        self._flags = torch.empty(0)
        self._flat: list[Tensor] = []
        self._sums: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(value.dtype for value in parameters):
            self._lay_out({i: value for i, value in enumerate(parameters) if value.dtype == dtype}, dtype)

    def _lay_out(self, parameters: dict[int, nn.Parameter], dtype: torch.dtype) -> None:
        """Make a flat tensor in which each sum has the strides of its parameter; the first ends with the flags."""
        flags = 0 if self._flat else 2 + len(self._present)
        sizes = [value.numel() for value in parameters.values()]
        device = next(iter(parameters.values())).device
        flat = torch.zeros(sum(sizes) + flags, dtype=dtype, device=device)
        *pieces, rest = flat.split([*sizes, flags])
        for (i, value), piece in zip(parameters.items(), pieces, strict=True):
            self._sums[i] = piece.as_strided(value.shape, value.stride())
        self._flags = rest if flags else self._flags
        self._flat.append(flat)

    def clear(self) -> None:
        """Set the sums to zero, for a new step."""
        self._present = [False] * len(self._present)
        for flat in self._flat:
            flat.zero_()

    def add(self, gradients: Gradients, data: int) -> None:
        """Add a part: the gradient of its mean loss, and of how many data that is the mean."""
        for i, value in enumerate(gradients):
            if value is not None:
                self._sums[i].add_(value, alpha=data)
                self._present[i] = True

    def exchange(self, failed: bool, stop: bool) -> tuple[bool, bool]:
        """Add up the parts of all processes; return whether any of them has failed, and whether any wishes to stop."""
        if self._processes.number == 1:
            return failed, stop
        self._flags.copy_(torch.tensor([failed, stop, *self._present]))
        for flat in self._flat:
            self._processes.sum(flat)
        failed, stop, *self._present = (value > 0 for value in self._flags.tolist())
        return failed, stop

    def mean(self, data: int) -> Gradients:
        """Divide by the number of data in the step, and return the gradient; None for a parameter that none reached."""
        for flat in self._flat:
            flat.div_(data)
        return [self._sums[i] if present else None for i, present in enumerate(self._present)]
