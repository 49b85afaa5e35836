"""What a training loop looks at before it trusts itself."""

import warnings

import torch
from torch import Tensor, nn

from pyrovae.errors import InputError
from pyrovae.objectives import ObjectiveModule
from pyrovae.weights import LogWeights


class UnmovedParameterWarning(UserWarning):
    """The first step left parameters where they were."""


class MovedParameters:
    """Remembers a module's parameters, to name those that a step did not move."""

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


class Noise:
    """The state of a device's random generator, to draw the same again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def restore(self) -> None:
        """Set the generator back to where it was."""
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._state, self._device)
        else:
            torch.set_rng_state(self._state)


def require_finite(module: ObjectiveModule, loss: Tensor, x: Tensor, noise: Noise) -> None:
    """Raise an InputError that names the site where a loss, or a gradient of it, is not finite.

    Args:
        module: the objective on its pair, with gradients where it is being trained, before the optimiser's step.
        loss: the loss of the batch ``x``.
        x: the batch.
        noise: the generator's state before the loss was computed, to draw the same latents again.
    """
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    norm = torch.nn.utils.get_total_norm(gradients.values()) if loss.requires_grad else loss.new_zeros(())
    if torch.isfinite(loss.detach() + norm):
        return
    noise.restore()
    with torch.no_grad():
        blamed = _blame(module.weights(x))
    bad = [name for name, value in gradients.items() if not value.isfinite().all()]
    blamed = blamed or f"the densities are finite, but not the gradient of {', '.join(bad) or 'all parameters together'}"
    raise InputError(
        f"the loss is {loss.item():g}: {blamed}; the parameters are as they were before this step: look at the data of the "
        "batch, lower the learning rate, or bound the scales from below"
    )


def _blame(weights: LogWeights) -> str | None:
    for program, name, term in weights.terms():
        if not term.isfinite().all():
            datum = int((~term.isfinite()).any(0).nonzero()[0])
            values = term[:, datum]
            value = values[~values.isfinite()][0].item()
            return f"the log density of site {name!r} of the {program} is {value:g} for datum {datum} of the batch"
    return None
