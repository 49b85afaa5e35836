"""The cause of a loss or a gradient that is not finite: a site of the programs, or parameters."""

import math

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from pyrovae.engine.weights import LogWeights
from pyrovae.errors import InputError
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.parameters import same_random_numbers


class NonFiniteError(InputError):
    """The loss of a step, or its gradient, is not finite; the message has the site, and parameters are as before it."""


def blame(module: ObjectiveModule, batch: Batch | None) -> str:
    """Say why the loss of a batch, or its gradient, is not finite: which site, or which parameters.

    Args:
        module: the objective on its pair, its parameters and the random generators as they were at that step.
        batch: the data, as the programs see them; None where it is no longer available.
    """
    loss, blamed = (math.nan, None) if batch is None else _blame(module, batch)
    if batch is None:
        return with_remedy(
            "the loss is not finite, for a batch that is no longer available (compile=False looks at every step)"
        )
    if blamed is None:
        return with_remedy(
            "the loss is not finite: with other random numbers the densities of that batch, and their gradient, are"
        )
    return with_remedy(f"the loss is {loss:g}: {blamed}")


def with_remedy(what: str) -> str:
    """Add to what was not finite what to do."""
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
