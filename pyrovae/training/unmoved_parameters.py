"""Parameters that the first step of a training did not change."""

import warnings

import torch
from torch import Tensor, nn


class UnmovedParameterWarning(UserWarning):
    """Parameters that the first step did not change, or networks that are not trained."""


class MovedParameters:
    """A copy of a module's parameters, to name those that a step did not move."""

    def __init__(self, module: nn.Module) -> None:
        self._before = {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}

    def warn(self, module: nn.Module) -> None:
        """Warn, with the names, where trainable parameters are what they were."""
        after = dict(module.named_parameters())
        still = [name for name, value in self._before.items() if torch.equal(value, after[name])]
        if still:
            listed = "; ".join(f"{name} ({_why(after[name].grad)})" for name in still)
            warnings.warn(
                f"the first step moved all parameters but these: {listed}. Where that is meant, set requires_grad=False; "
                "otherwise look whether the programs use them",
                UnmovedParameterWarning,
                stacklevel=3,
            )


def _why(gradient: Tensor | None) -> str:
    if gradient is None:
        return "no gradient reached it"
    return "its step was too small to count" if gradient.any() else "its gradient is 0"
