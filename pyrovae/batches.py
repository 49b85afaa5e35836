"""Walk over data in batches, whatever holds them: one tensor in memory, or a data set that is read as it goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyrovae.errors import InputError

type_names = "a tensor, a NumPy array or a torch.utils.data.Dataset"


def as_data(data: Any) -> Tensor | Dataset:
    """A tensor or a ``Dataset`` as it is, a NumPy array as a tensor: floats and booleans in torch's default precision.

    Raises:
        InputError: for anything else, and for data without a single datum.
    """
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
        data = data.to(torch.get_default_dtype()) if data.is_floating_point() or data.dtype == torch.bool else data
    if not isinstance(data, Tensor | Dataset):
        raise InputError(f"data is a {type(data).__name__}; expected {type_names}")
    if isinstance(data, Tensor) and data.dim() == 0:
        raise InputError(f"data is a single number; expected {type_names} whose first axis counts the data")
    if size(data) == 0:
        raise InputError("data is empty; expected at least one datum")
    return data


def size(data: Tensor | Dataset) -> int:
    """The number of data."""
    return len(data)  # pyright: ignore[reportArgumentType]


def batches(
    data: Tensor | Dataset,
    batch_size: int,
    *,
    order: Tensor | None = None,
    device: torch.device | str | None = None,
    workers: int = 0,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield ``x`` of shape ``(B, *event_shape)``, in the order given or as stored, the last batch short.

    A tensor is indexed where it lies; a ``Dataset``, whose items are ``x`` or tuples that begin with ``x``, is read
    through a ``DataLoader`` with pinned memory where the batch goes to a CUDA device.
    """
    if isinstance(data, Tensor):
        for start in range(0, len(data if order is None else order), batch_size):
            stop = start + batch_size
            x = data[start:stop] if order is None else data[order[start:stop].to(data.device)]
            yield x.to(device)
        return
    pin = device is not None and torch.device(device).type == "cuda"
    sampler = None if order is None else order.tolist()
    generator = generator or torch.Generator()  # the loader seeds its workers with it, and else draws from torch's own
    for item in DataLoader(data, batch_size, sampler=sampler, num_workers=workers, pin_memory=pin, generator=generator):
        x = item[0] if isinstance(item, list | tuple) else item
        yield x.to(device, non_blocking=pin)


def prefetched(stream: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The batches on ``device``; where that is a CUDA device, each is read, pinned and sent while the one before is used."""
    if device.type != "cuda":
        yield from (x.to(device) for x in stream)
        return
    side = torch.cuda.Stream(device)

    def read() -> tuple[Tensor, Any] | None:
        x = next(stream, None)
        if x is None:
            return None
        with torch.cuda.stream(side):
            waiting = x.pin_memory() if x.device.type == "cpu" and not x.is_pinned() else x
            return waiting.to(device, non_blocking=True), side.record_event()

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read)
        while item := ahead.result():
            ahead = reader.submit(read)
            x, sent = item
            torch.cuda.current_stream(device).wait_event(sent)
            x.record_stream(torch.cuda.current_stream(device))
            yield x
