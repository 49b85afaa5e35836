"""The numbers that an objective gives for a batch."""

from typing import NamedTuple

from torch import Tensor

from pyrovae.engine.weights import LogWeights


class Measurement(NamedTuple):
    """The loss of one batch with the terms that make it, in nats.

    Attributes:
        loss: minus the bound (plus it, for an upper bound), summed over the data, times the data plate's scale; a scalar
            with the objective's gradient.
        bound: the bound, shape ``(B,)``.
        reconstruction: the mean over particles of ``log p(x | z)``, shape ``(B,)``.
        kl: the estimate of ``KL(q(z | x) || p(z))``, shape ``(B,)``.
        parts: what else the objective is made of, as its ``parts`` name it, shape ``(len(parts), B)``.
        scale: full size over subsample size of the data plate, contained in the loss only.
    """

    loss: Tensor
    bound: Tensor
    reconstruction: Tensor
    kl: Tensor
    parts: Tensor
    scale: float | Tensor


class Evaluation(NamedTuple):
    """The value of an objective on one batch, and what is differentiated for it.

    Attributes:
        weights: the log weights.
        bound: the value for each datum, shape ``(B,)``.
        surrogate: what is differentiated for each datum, shape ``(B,)``; its own value does not matter.
        parts: the values that ``Objective.parts`` names, each of shape ``(B,)``.
    """

    weights: LogWeights
    bound: Tensor
    surrogate: Tensor
    parts: tuple[Tensor, ...] = ()
