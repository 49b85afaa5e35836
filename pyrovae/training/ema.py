r"""Exponential moving averages of the weights along a training run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pyrovae.errors import InputError
from pyrovae.runtime.copies import Copies


class Averages:
    r"""Exponential moving average of the parameters along a training run.

    .. math::
        \bar\theta_t = d\, \bar\theta_{t - 1} + (1 - d)\, \theta_t, \qquad \bar\theta_0 = \theta_0

    over steps t. A parameter with a constraint is averaged in its free form: of a positive one, the logarithm. Buffers,
    such as the statistics of batch normalisation, are not averaged.

    Args:
        decay: :math:`d`, between 0 and 1.
        parameters: those that are trained, by name.

    Raises:
        InputError: for another decay.

    References:
        | Adam: A Method for Stochastic Optimization (Kingma & Ba, 2015), section 7.2, without its correction for the
          beginning; https://arxiv.org/abs/1412.6980
    """

    def __init__(self, decay: float, parameters: dict[str, nn.Parameter]) -> None:
        if not 0.0 < decay < 1.0:
            raise InputError(f"ema is {decay}; expected a decay between 0 and 1, such as 0.999, or None for no averages")
        self.decay = decay
        self._average = get_ema_multi_avg_fn(decay)
        self._values = {name: value.detach() for name, value in parameters.items()}
        self._averages = {name: value.clone() for name, value in self._values.items()}

    def update(self, failed: Tensor | None = None) -> None:
        """Update the averages after a step, unless, on the device, it has failed."""
        averages, values = [*self._averages.values()], [*self._values.values()]
        if failed is not None:  # the average of a number and itself is that number
            pairs = zip(averages, values, strict=True)
            values = [torch.where(failed.bool(), average, value) for average, value in pairs]
        self._average(averages, values, 0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters the values of the averages meanwhile, in the memory that is theirs."""
        before = Copies(self._values.values())
        _copy(self._averages, self._values)
        try:
            yield
        finally:
            before.restore()

    def state(self) -> dict[str, Tensor]:
        """Copy the averages, by the names of the parameters."""
        return {name: value.clone() for name, value in self._averages.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Set the averages to those of an earlier :meth:`state`.

        Raises:
            InputError: where the averages are of other parameters.
        """
        if not state:
            raise InputError("there are no averages to go on from: that run kept none; pass ema=None, or begin again")
        for name in sorted(state.keys() | self._averages.keys()):
            found, expected = (tuple(part[name].shape) if name in part else "none" for part in (state, self._averages))
            if found != expected:
                raise InputError(
                    f"the average of {name!r} has shape {found} there, and the parameter {expected} here; build the "
                    "programs as they were when trained"
                )
        _copy(state, self._averages)


def by_name(module: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return parameters by their names in a module, or, where they are not its own, by their places."""
    known: dict[Any, str] = {value: name for name, value in module.named_parameters()}
    return {known.get(value, f"parameter {place}"): value for place, value in enumerate(parameters)}


def _copy(sources: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
