"""What a training loop looks at before it trusts itself."""

import math
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.parameters import same_random_numbers


class UnmovedParameterWarning(UserWarning):
    """The first step left parameters where they were."""


class NonFiniteError(InputError):
    """The loss of a step, or its gradient, is not finite; the message has the site, and parameters are as before it."""


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


class Copies:
    """Tensors as they are now, to be put back."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        self._pairs = [(value, value.detach().clone()) for value in values]

    @torch.no_grad()
    def restore(self, where: Tensor | None = None) -> None:
        """Set them to what they were; with ``where``, on its device, if that is not 0."""
        for value, before in self._pairs:
            value.copy_(before if where is None else torch.where(where.bool(), before, value))


def blame(module: ObjectiveModule, batch: Batch | None) -> str:
    """What to say of a batch whose loss, or the gradient of it, was not finite: the site, or the parameters, to blame.

    Args:
        module: the objective on its pair, its parameters and the random generators as they were at that step.
        batch: the data, as the programs see them; None where it is not at hand any more.
    """
    loss, blamed = (math.nan, None) if batch is None else _blame(module, batch)
    if batch is None:
        return with_remedy(
            "the loss is not finite, for a batch that is not at hand any more (compile=False looks at every step)"
        )
    if blamed is None:
        return with_remedy(
            "the loss is not finite: with other random numbers the densities of that batch, and their gradient, are"
        )
    return with_remedy(f"the loss is {loss:g}: {blamed}")


def with_remedy(what: str) -> str:
    """What was not finite, and what to do."""
    return (
        f"{what}; the parameters are as they were before this step: look at the data of the batch, lower the learning rate, "
        "or bound the scales from below"
    )


@torch.enable_grad()
def _blame(module: ObjectiveModule, batch: Batch) -> tuple[float, str | None]:
    with same_random_numbers(batch.x):
        loss = module.measure(batch.x, **batch.given).loss
    weights = module.weights(batch.x, **batch.given)
    return loss.item(), _site(weights) or (_gradient(module, loss) if loss.requires_grad else None)


def _gradient(module: ObjectiveModule, loss: Tensor) -> str | None:
    named = {name: value for name, value in module.named_parameters() if value.requires_grad}
    gradients = dict(zip(named, torch.autograd.grad(loss, [*named.values()], allow_unused=True), strict=True))
    bad = [name for name, value in gradients.items() if value is not None and not value.isfinite().all()]
    if not bad and get_total_norm([value for value in gradients.values() if value is not None]).isfinite():
        return None
    return f"the densities are finite, but not the gradient of {', '.join(bad) or 'all parameters together'}"


def _site(weights: LogWeights) -> str | None:
    for program, name, term in weights.terms():
        if not term.isfinite().all():
            datum = int((~term.isfinite()).any(0).nonzero()[0])
            values = term[:, datum]
            value = values[~values.isfinite()][0].item()
            return f"the log density of site {name!r} of the {program} is {value:g} for datum {datum} of the batch"
    return None
