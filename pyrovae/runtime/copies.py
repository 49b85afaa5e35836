"""Copies of tensors, to be put back."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Copies:
    """Tensors as they are now, to be put back."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        self._pairs = [(value, value.detach().clone()) for value in values]

    @torch.no_grad()
    def restore(self, where: Tensor | None = None) -> None:
        """Set them to what they were; with ``where``, on its device, if that is not 0."""
        for value, before in self._pairs:
            value.copy_(before if where is None else torch.where(where.bool(), before, value))
