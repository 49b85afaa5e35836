"""The state of annealed chains."""

from typing import NamedTuple

import torch
from torch import Tensor


class State(NamedTuple):
    r"""The positions of chains, and both ends of the path there.

    Attributes:
        u: unconstrained latents, shape ``(K, B, D)``.
        log_f0: :math:`\log f_0`, shape ``(K, B)``, in nats.
        log_f1: :math:`\log f_1`, shape ``(K, B)``, in nats.
        gradient_0: the gradient of :math:`\log f_0`, shape ``(K, B, D)``.
        gradient_1: the gradient of :math:`\log f_1`, shape ``(K, B, D)``.
    """

    u: Tensor
    log_f0: Tensor
    log_f1: Tensor
    gradient_0: Tensor
    gradient_1: Tensor

    def log_f(self, beta: Tensor) -> Tensor:
        r"""Interpolate :math:`\log f_\beta`, for inverse temperatures of shape ``(B,)``; shape ``(K, B)``."""
        return (1.0 - beta) * self.log_f0 + beta * self.log_f1

    def gradient(self, beta: Tensor) -> Tensor:
        r"""Interpolate the gradient of :math:`\log f_\beta`, shape ``(K, B, D)``."""
        return (1.0 - beta)[..., None] * self.gradient_0 + beta[..., None] * self.gradient_1

    def where(self, chosen: Tensor, other: "State") -> "State":
        """This state for the chosen chains, ``(K, B)``, and the other for the rest."""
        return State(*(torch.where(chosen[(..., *[None] * (a.dim() - 2))], a, b) for a, b in zip(self, other, strict=True)))

    @property
    def undefined(self) -> Tensor:
        """Whether a density of a chain is NaN or infinity, or its gradient NaN, shape ``(K, B)``."""
        gradients = torch.stack([self.gradient_0, self.gradient_1])
        densities = torch.stack([self.log_f0, self.log_f1])
        return densities.isnan().any(0) | densities.isposinf().any(0) | gradients.isnan().any(-1).any(0)

    @property
    def impossible(self) -> Tensor:
        """Whether a density of a chain is zero, shape ``(K, B)``."""
        return torch.stack([self.log_f0, self.log_f1]).isneginf().any(0)
