"""Walk over data in batches, whatever holds them: tensors in memory, or a data set that is read as it goes."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyrovae.errors import InputError

type_names = "a tensor, a NumPy array, a torch.utils.data.Dataset, a Split, or a mapping of 'x' and what goes with it"
X = TypeVar("X", bound=Tensor | Dataset)


class HasFixedDraw(Protocol):
    """A part of a data set with a binarisation, a ``Split`` of :mod:`pyrovae.data` say."""

    def fixed_draw(self, seed: int = 0) -> Any:
        """The data as they are evaluated: a tensor, a ``Dataset``, or a mapping."""
        ...


DataLike = Tensor | np.ndarray | Dataset | Mapping[str, Any] | HasFixedDraw
"""Types of data that :func:`as_data` takes."""


@dataclass(frozen=True, eq=False)
class Columns(Generic[X]):
    """Data with what the programs are given beside them, as in ``program(x, **given)``.

    Attributes:
        x: the data, ``(N, *event_shape)``, or a ``Dataset`` of them.
        given: further tensors, with the same first axis, by the names of the programs' arguments.
    """

    x: X
    given: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return size(self.x)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The data, which are in memory, and what is given with them, in order."""
        assert isinstance(self.x, Tensor)
        return (self.x, *self.given.values())

    def with_tensors(self, x: Tensor, *given: Tensor) -> "Batch":
        """Other tensors under the same names."""
        return Columns(x, dict(zip(self.given, given, strict=True)))

    def to(self, device: torch.device | str | None, non_blocking: bool = False) -> "Batch":
        """Move the columns to a device, unless it is None."""
        return self.with_tensors(*(value.to(device, non_blocking=non_blocking) for value in self.tensors))

    def rows(self, index: slice | Tensor) -> Self:
        """Some of the data, which are in memory."""
        return self.with_tensors(*(value[_there(index, value)] for value in self.tensors))  # pyright: ignore

    def filled_up(self, length: int) -> "Batch":
        """Pad to a number of rows by repeating the last."""
        return self.with_tensors(*(_filled_up(column, length) for column in self.tensors))

    def plain(self) -> Any:
        """The data as users hand them over: ``x`` alone, or a mapping with what is given."""
        return {"x": self.x, **self.given} if self.given else self.x


Batch = Columns[Tensor]


def _filled_up(column: Tensor, length: int) -> Tensor:
    return torch.cat([column, column[-1:].expand(length - len(column), *column.shape[1:])])


def _there(index: slice | Tensor, value: Tensor) -> slice | Tensor:
    return index.to(value.device) if isinstance(index, Tensor) else index


def as_data(data: Any) -> Columns[Tensor | Dataset]:
    """Turn data into columns: a tensor or ``Dataset`` as it is, an array as a tensor, a ``Split`` by its fixed draw.

    NumPy's floats become numbers of torch's default precision, and so do booleans that are data. A mapping has the data
    under ``x``, and under other names what the programs are given beside them.

    Raises:
        InputError: for anything else, for data without a single datum, and for columns of several lengths.
    """
    if isinstance(data, Columns):
        return data
    if callable(fixed_draw := getattr(data, "fixed_draw", None)):
        data = fixed_draw()
    if not isinstance(data, Mapping):
        return Columns(_numbers(_column(data, "data"), data))
    if "x" not in data:
        raise InputError(f"data has {', '.join(map(repr, data)) or 'nothing'}; expected the data themselves under 'x'")
    x = _numbers(_column(data["x"], "data['x']"), data["x"])
    given = {name: _given(value, name, size(x)) for name, value in data.items() if name != "x"}
    return Columns(x, given)


def as_batch(x: Any) -> Batch:
    """Turn one batch into columns; a ``Dataset`` is read as a whole.

    Raises:
        InputError: for what :func:`as_data` refuses.
    """
    data = as_data(x)
    return next(batches(data, len(data)))


def _numbers(x: Tensor | Dataset, source: Any) -> Tensor | Dataset:
    """NumPy's booleans as numbers."""
    boolean = isinstance(source, np.ndarray) and source.dtype == bool
    return x.to(torch.get_default_dtype()) if boolean and isinstance(x, Tensor) else x


def _given(values: Any, name: str, expected: int) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise InputError(f"data[{name!r}] is a {type(values).__name__}; expected a tensor or a NumPy array. {_same(name)}")
    column: Any = _column(values, f"data[{name!r}]")
    if len(column) != expected:
        raise InputError(
            f"data[{name!r}] has {len(column)} rows and data['x'] has {expected}; expected one per datum. {_same(name)}"
        )
    return column


def _same(name: str) -> str:
    """Pass a value that is not a tensor as it is."""
    return f"What is the same for all data, give to the programs themselves: functools.partial(model, {name}=...)"


def _column(data: Any, name: str) -> Tensor | Dataset:
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
        data = data.to(torch.get_default_dtype()) if data.is_floating_point() else data
    if not isinstance(data, Tensor | Dataset):
        raise InputError(f"{name} is a {type(data).__name__}; expected {type_names}")
    if isinstance(data, Tensor) and data.dim() == 0:
        raise InputError(f"{name} is a single number; expected {type_names} whose first axis counts the data")
    if size(data) == 0:
        raise InputError(f"{name} is empty; expected at least one datum")
    return data


def size(data: Tensor | Dataset) -> int:
    """The number of data."""
    return len(data)  # pyright: ignore[reportArgumentType]


def batches(
    data: Columns[Any],
    batch_size: int,
    *,
    order: Tensor | None = None,
    device: torch.device | str | None = None,
    workers: int = 0,
    generator: torch.Generator | None = None,
) -> Iterator[Batch]:
    """Yield batches with ``x`` of shape ``(B, *event_shape)``, in the order given or as stored, the last one short.

    Tensors are indexed where they lie. A ``Dataset``, whose items are ``x``, tuples that begin with ``x``, or mappings of
    ``x`` and what goes with it, is read through a ``DataLoader`` with pinned memory where the batch goes to a CUDA device.
    """
    if isinstance(data.x, Tensor):
        for start in range(0, len(data if order is None else order), batch_size):
            stop = start + batch_size
            yield data.rows(slice(start, stop) if order is None else order[start:stop]).to(device)
        return
    pin = device is not None and torch.device(device).type == "cuda"
    sampler = None if order is None else order.tolist()
    generator = generator or torch.Generator()  # the loader seeds its workers with it, and else draws from torch's own
    read = DataLoader(data.x, batch_size, sampler=sampler, num_workers=workers, pin_memory=pin, generator=generator)
    places = torch.arange(len(data)) if order is None else order
    for item, place in zip(read, places.split(batch_size) if len(places) else (), strict=True):
        x, given = _item(item)
        beside = {name: value[_there(place, value)] for name, value in data.given.items()}
        yield Columns(x, {**given, **beside}).to(device, non_blocking=pin)


def _item(item: Any) -> tuple[Tensor, dict[str, Tensor]]:
    if isinstance(item, Mapping):
        given = {name: value for name, value in item.items() if name != "x"}
        for name in (name for name, value in given.items() if not isinstance(value, Tensor)):
            raise InputError(f"the items of the data set have {name!r} that is neither a number nor a tensor. {_same(name)}")
        return item["x"], given
    return (item[0] if isinstance(item, list | tuple) else item), {}


def prefetched(stream: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Move batches to ``device``; to a CUDA device each is sent while the one before is used."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in stream)
        return
    side = torch.cuda.Stream(device)

    def read() -> tuple[Batch, Any] | None:
        batch = next(stream, None)
        if batch is None:
            return None
        with torch.cuda.stream(side):
            waiting = batch.with_tensors(*(_pinned(value) for value in batch.tensors))
            return waiting.to(device, non_blocking=True), side.record_event()

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read)
        while item := ahead.result():
            ahead = reader.submit(read)
            batch, sent = item
            torch.cuda.current_stream(device).wait_event(sent)
            for value in batch.tensors:
                value.record_stream(torch.cuda.current_stream(device))
            yield batch


def _pinned(value: Tensor) -> Tensor:
    return value.pin_memory() if value.device.type == "cpu" and not value.is_pinned() else value
