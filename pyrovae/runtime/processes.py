"""Processes that train together, each on its share of every batch, with the same parameters at every step.

They are those of torch's process group, on CPUs by gloo, on CUDA devices by NCCL::

    torchrun --nproc-per-node 2 my_training.py      # which calls torch.distributed.init_process_group

Without a group the process is alone, and nothing here does anything.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from pyrovae.errors import InputError

Item = TypeVar("Item")


class Processes:
    """The processes that train together.

    Attributes:
        rank: the place of this one.
        number: how many there are.
    """

    def __init__(self) -> None:
        group = distributed.is_available() and distributed.is_initialized()
        self.rank, self.number = (distributed.get_rank(), distributed.get_world_size()) if group else (0, 1)

    def share(self, rows: int) -> slice:
        """The rows of a batch for this process: contiguous, in the order of the ranks, equally many up to 1."""
        each, rest = divmod(rows, self.number)
        start = self.rank * each + min(self.rank, rest)
        return slice(start, start + each + (self.rank < rest))

    def sum(self, values: Tensor) -> Tensor:
        """Sum over processes, in place, with the same bits in each."""
        if self.number > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, item: Item) -> list[Item]:
        """Gather an item of each process, in the order of the ranks; anything that can be pickled."""
        if self.number == 1:
            return [item]
        items: list[Any] = [None] * self.number
        distributed.all_gather_object(items, item)
        return items

    def any(self, wish: bool) -> bool:
        """Whether ``wish`` is true in any process."""
        return any(self.gather(wish))

    def take_from_first(self, values: Sequence[Tensor], device: torch.device) -> None:
        """Broadcast tensors from the first process, in place, by way of ``device``."""
        if self.number == 1 or not values:
            return
        sent = torch.cat([_bytes(value).to(device) for value in values])
        distributed.broadcast(sent, 0)
        for value, found in zip(values, sent.split([value.nbytes for value in values]), strict=True):
            value.detach().copy_(found.clone().view(value.dtype).view(value.shape))

    def require_equal(self, values: Mapping[str, Tensor]) -> None:
        """Raise an InputError, in every process, where tensors are not the same in all of them; it names the first."""
        if self.number == 1:
            return
        digests = self.gather({name: _digest(value) for name, value in values.items()})
        for rank, found in enumerate(digests):
            name = _first_difference(digests[0], found)
            if name is not None:
                raise InputError(
                    f"{name!r} is not the same in process {rank} as in process 0; processes that train together begin with "
                    "the same weights: call pyro.set_rng_seed with one seed in each before the programs are made, or "
                    "torch.distributed.broadcast every parameter and buffer from process 0"
                )


def _first_difference(one: dict[str, str], other: dict[str, str]) -> str | None:
    return next((name for name in {**one, **other} if one.get(name) != other.get(name)), None)


def _digest(value: Tensor) -> str:
    header = f"{tuple(value.shape)} {value.dtype} "
    return hashlib.sha256(header.encode() + _bytes(value).cpu().numpy().tobytes()).hexdigest()


def _bytes(value: Tensor) -> Tensor:
    return value.detach().reshape(-1).contiguous().view(torch.uint8)
