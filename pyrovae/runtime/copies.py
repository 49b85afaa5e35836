"""Copies of tensors, from which they can be restored."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Copies:
    """A copy of tensors as they are now, from which they can be restored."""

    def __init__(self, values: Iterable[Tensor]) -> None:
        self._pairs = [(value, value.detach().clone()) for value in values]

    @torch.no_grad()
    def restore(self, where: Tensor | None = None) -> None:
        """Restore the tensors; with ``where``, a number on their device, only if it is not 0."""
        for value, before in self._pairs:
            value.copy_(before if where is None else torch.where(where.bool(), before, value))
