"""The base of all data sets: three parts, fixed by a seed, and a stated binarisation."""

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyrovae.data.binarize import Binarize
from pyrovae.data.lazy import Binarized, Rows, Source, read
from pyrovae.data.partition import Partition
from pyrovae.data.split import Split
from pyrovae.errors import InputError

memory_limit = 2 * 2**30
"""Bytes of float32 up to which a data set is read into memory, unless ``in_memory`` says otherwise: 2 GiB."""


class Data(ABC):
    """A data set with a training, a validation and a test part.

    A subclass finds its source and says how it is cut into parts; reading, checking, binarising and batching happen
    here. Attributes: ``event_shape``, the shape of one datum; ``binarize``; and the parts ``train``, ``validation``
    and ``test``, each a `Split` with its ``x`` and ``labels``.

    >>> from pyrovae.data import by_fractions
    >>> class Noise(Data):
    ...     name = "Noise"
    ...
    ...     def __init__(self, *, binarize: str = "none", split_seed: int = 0) -> None:
    ...         x = np.random.default_rng(0).random((100, 4))
    ...         partition = by_fractions(100, validation=0.1, test=0.2, seed=split_seed)
    ...         super().__init__(x, partition, labels=None, binarize=binarize)
    >>> Noise(binarize="threshold")
    Noise: 70 train, 10 validation, 20 test, event shape (4,), binarize=threshold

    Args:
        source: the raw data, shape ``(N, *event_shape)``: floats, ``uint8`` (divided by 255) or ``bool``.
        partition: the indices of the data in each part.
        labels: int64, shape ``(N,)``, or None.
        binarize: ``none``, ``dynamic``, ``fixed``, ``fixed(SEED)`` or ``threshold``.
        in_memory: whether to hold the data in memory or read them as they are used; if None, in memory up to
            ``memory_limit``.
        missing: whether NaN stands for a number that was not observed: the programs are then given a ``mask``, true where
            one was, and 0 in its place.

    Raises:
        InputError: for an unknown ``binarize``; for values that are not finite, or that are outside [0, 1] where they
            are binarised (at the first use of the datum if the data are not held in memory).
    """

    def __init__(
        self,
        source: Source,
        partition: Partition,
        *,
        labels: Tensor | None,
        binarize: str,
        in_memory: bool | None = None,
        missing: bool = False,
    ) -> None:
        self.event_shape = tuple(source.shape[1:])
        self.binarize = Binarize.parse(binarize)
        if in_memory is None:
            in_memory = 4 * math.prod(source.shape) <= memory_limit
        if missing and not in_memory:
            raise InputError(
                "missing is true and in_memory is false; expected data in memory, where missing numbers are found: pass "
                "in_memory=True"
            )
        given = {}
        if missing:
            source, given["mask"] = _filled(source)
        select = partial(_select, _load(source, self.binarize) if in_memory else source, labels, given, self.binarize)
        self.train, self.validation, self.test = map(select, partition)

    def condition_on_labels(self, *shape: int) -> None:
        """Give the programs the labels as context ``c``, one-hot, shape ``(B, classes)``.

        Args:
            shape: the number of classes.

        Raises:
            InputError: where the data have no labels, or some that are none of so many classes.
        """
        parts = [self.train, self.validation, self.test]
        labels = [part.labels for part in parts if part.labels is not None]
        if not labels:
            raise InputError(f"{self.name} has no labels, which are the context of a model here; leave out context_shape")
        largest = int(torch.cat(labels).max())
        if len(shape) != 1 or shape[0] <= largest:
            raise InputError(
                f"context_shape is {shape} and the labels of {self.name} go up to {largest}; expected ({largest + 1},)"
            )
        self.train, self.validation, self.test = (
            replace(part, given={**part.given, "c": one_hot(known, *shape).float()})
            for part, known in zip(parts, labels, strict=True)
        )

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the data in tables and figures."""

    def record(self) -> dict[str, np.ndarray]:
        """The indices of the data in each part, int64, from which the split can be reproduced."""
        return {"train": self.train.index, "validation": self.validation.index, "test": self.test.index}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(index):,} {part}" for part, index in self.record().items())
        return f"{self.name}: {sizes}, event shape {self.event_shape}, binarize={self.binarize}"


def _load(source: Source, binarize: Binarize) -> Tensor:
    everything = np.arange(source.shape[0])
    return binarize.store(read(source, everything), everything)


def _filled(source: Source) -> tuple[np.ndarray, Tensor]:
    """Replace each NaN by 0, and return the mask of the numbers that were observed."""
    raw = np.asarray(source[np.arange(source.shape[0])])
    observed = ~np.isnan(raw) if raw.dtype.kind == "f" else np.ones(raw.shape, dtype=bool)
    return np.where(observed, raw, 0).astype(raw.dtype), torch.from_numpy(observed)


def _select(
    data: Tensor | Source, labels: Tensor | None, given: dict[str, Tensor], binarize: Binarize, index: np.ndarray
) -> Split:
    x = data[index] if isinstance(data, Tensor) else Binarized(Rows(data, index), index, binarize)
    beside = {name: value[index] for name, value in given.items()}
    return Split(x, None if labels is None else labels[index], index, binarize, beside)
