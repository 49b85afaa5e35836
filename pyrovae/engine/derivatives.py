"""Derivatives of a loss by autograd, with an error that says what to do about reentrant checkpoints."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrovae.errors import InputError


def derivatives(loss: Tensor, wanted: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """The derivatives of a loss; None for what it does not depend on.

    Raises:
        InputError: for a network that is checkpointed by running backward passes within the backward pass.
    """
    try:
        return torch.autograd.grad(loss, wanted, allow_unused=True)
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise InputError(
            "a network is checkpointed with use_reentrant=True, which has gradients by backward() alone; expected "
            "checkpoint(..., use_reentrant=False), whose numbers are the same"
        ) from error
