"""New data drawn from a trained model."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyrovae.errors import InputError
from pyrovae.vae import VAE


@torch.no_grad()
def generate(vae: VAE, number: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw new data from the model and, for each, the mean of p(x | z): both of shape ``(number, *event_shape)``.

    A model that is conditioned on labels is given these.

    Raises:
        InputError: where they are not finite.
    """
    from pyro import poutine

    context = None if labels is None else one_hot(labels, math.prod(vae.context_shape or (1,))).float()
    place = next((value.device for value in vae.parameters()), None)
    context = None if context is None else context.to(place)
    site: Any = poutine.trace(vae.model).get_trace(None, context, size=number).nodes["x"]
    drawn = site["value"], site["fn"].mean
    if not all(torch.isfinite(value).all() for value in drawn):
        raise InputError("the model draws data that are not finite; expected a trained pair: train again")
    return drawn


def labels_in_turn(vae: VAE, number: int) -> Tensor | None:
    """Labels in equal numbers, sorted; ``None`` for a model that is not conditioned on any."""
    return None if vae.context_shape is None else torch.arange(number) * math.prod(vae.context_shape) // number


def sample_means(vae: VAE, number: int = 64) -> Tensor:
    """The means of data drawn from the model, on the CPU, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return generate(vae, number, labels_in_turn(vae, number))[1].cpu()
