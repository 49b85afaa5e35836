"""A minibatch as a step is given it: tensors, and how the data of the batch are made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from pyrovae.runtime.batches import Batch


@dataclass(slots=True, eq=False)
class Minibatch:
    """Tensors of which a batch is made, and the function that makes it, which a fused step contains.

    Attributes:
        tensors: what a step reads; the first axis of the last one counts the data of the batch.
        rows: the columns of the batch, made of these tensors.
        names: a batch with the names of its columns.
    """

    tensors: tuple[Tensor, ...]
    rows: Callable[..., Sequence[Tensor]]
    names: Batch

    @classmethod
    def from_memory(cls, data: Batch, index: Tensor) -> Self:
        """Take the rows at ``index``, shape ``(B,)``, of data that are in memory."""
        return cls((*data.tensors, index), _indexed, data)

    @classmethod
    def from_batch(cls, batch: Batch) -> Self:
        """Take a batch that was read elsewhere."""
        return cls(batch.tensors, _as_given, batch)

    def __len__(self) -> int:
        return len(self.tensors[-1])

    @property
    def kind(self) -> Any:
        """A key that minibatches share which one recording serves: how rows are made, shapes and types."""
        return self.rows, tuple((value.shape, value.dtype) for value in self.tensors)

    def batch(self) -> Batch:
        """Make the batch: the data, and what is given with them."""
        return self.batch_from(self.tensors)

    def batch_from(self, tensors: Sequence[Tensor]) -> Batch:
        """Make the batch of other tensors of this kind."""
        return self.names.with_tensors(*self.rows(*tensors))


def _indexed(*data_and_index: Tensor) -> Sequence[Tensor]:
    *data, index = data_and_index
    return [column[index] for column in data]


def _as_given(*batch: Tensor) -> Sequence[Tensor]:
    return batch
