"""The contenders, one a file: each builds, from a task, a function that does n steps and returns the mean loss a datum."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from benchmarks.task import Task

Stepper = Callable[[int], float]
"""Does so many training steps, waits for the device, and returns the mean of the loss over them, in nats a datum."""

Peer = Callable[[Task], Stepper]
"""Builds a contender; raises AbsentError where it cannot run here."""


class Trained(NamedTuple):
    """What a whole run leaves behind.

    Attributes:
        propose: from data to means and scales of q(z | x), both of shape ``(B, latent_dim)``.
        decode: from z of shape ``(B, latent_dim)`` to logits of shape ``(B, *event_shape)``.
    """

    propose: Callable[[Tensor], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor], Tensor]


Trainer = Callable[[Task, int], Trained]
"""Trains for so many epochs, with everything that it needs for that; raises AbsentError where it cannot run here."""

Estimator = Callable[[Tensor, int, int], Tensor]
"""Estimates log p(x) of each datum of ``x``, shape ``(B, *event_shape)``, from so many draws at a seed; shape ``(B,)``."""
