"""Data that are read as they are used, for sets that do not fit in memory."""

from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae.data.binarize import Binarize
from pyrovae.data.values import as_floats, check_finite
from pyrovae.runtime.batches import size


class Source(Protocol):
    """Raw data by their indices: a NumPy array, a memory map, or files that are opened on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, *event_shape)``, known without reading the data."""
        ...

    def __getitem__(self, index: np.ndarray, /) -> Any:
        """Read an array of shape ``(B, *event_shape)`` for ``B`` indices."""
        ...


def read(source: Source, index: np.ndarray) -> Tensor:
    """Read the data at these indices as float32, of shape ``(B, *event_shape)``.

    Raises:
        InputError: for a value that is not finite.
    """
    x = as_floats(source[index])
    check_finite(x, index)
    return x


class Rows(Dataset[Tensor]):
    """The data of a source at these indices, each read on demand."""

    def __init__(self, source: Source, index: np.ndarray) -> None:
        self.source = source
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Tensor:
        return read(self.source, self.index[i, None])[0]


class Binarized(Dataset[Tensor]):
    """The items of a data set as a binarisation keeps them; ``index`` says where each stands in its source."""

    def __init__(self, data: Dataset[Tensor], index: np.ndarray, binarize: Binarize) -> None:
        self.data = data
        self.index = index
        self.binarize = binarize

    def __len__(self) -> int:
        return size(self.data)

    def __getitem__(self, i: int) -> Tensor:
        return self.binarize.store(self.data[i][None], self.index[i, None])[0]
