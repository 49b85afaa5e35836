"""Processes that ``torchrun`` started: they train and estimate together, and only the first writes and prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import NamedTuple
from uuid import uuid4

import torch
from torch import distributed
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from pyrovae.errors import InputError
from pyrovae.runtime.processes import Processes


class Group(NamedTuple):
    """Role of this process in its group.

    Attributes:
        first: whether it is the one that writes and prints.
        restarted: whether ``torchrun`` started them anew because one was lost.
    """

    first: bool
    restarted: bool


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the group of processes that ``torchrun`` started, if it did, and leave it at the end.

    Args:
        device: where it computes; the CUDA devices of a machine are dealt out to its processes by :func:`own_device`.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Group(first=True, restarted=False)
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
        # A lost process leaves in the store the wish for a dump, after which torch ends those that are started in its place.
        os.environ.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "0")
    store, rank, size = next(rendezvous("env://"))
    distributed.init_process_group("nccl" if on_cuda else "gloo", store=meet(store, rank, size), rank=rank, world_size=size)
    first, printed = rank == 0, sys.stdout
    try:
        if not first:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (closed below)
        # An agent counts the restarts that its own processes caused, not those of another machine's.
        yield Group(first, restarted=Processes().any(os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"))
    finally:
        if not first:
            sys.stdout.close()
            sys.stdout = printed
        distributed.destroy_process_group()


def meet(store: Store, rank: int, size: int) -> Store:
    """Meet the other living processes, and return the part of the store that belongs to them.

    ``torchrun`` keeps one store for all the times that it starts them, so that a process finds in it the addresses of those
    that were lost (https://github.com/pytorch/pytorch/issues/135712). Each says here a name that it never had, and the first
    tells all of these where to go.

    Raises:
        InputError: where some did not come within the store's timeout.
    """
    if rank > 0:
        name = uuid4().hex
        store.set(f"here/{rank}", name)
        place = store.get(f"go/{name}").decode()
        store.add(f"{place}/met", 1)
        return PrefixStore(place, store)
    place = uuid4().hex
    others = [f"here/{other}" for other in range(1, size)]
    patience = store.timeout.total_seconds()  # pyright: ignore[reportAttributeAccessIssue]
    until = monotonic() + patience
    while (met := store.add(f"{place}/met", 0)) < len(others):
        if monotonic() > until:
            raise InputError(f"{met + 1} of {size} processes met within {patience:.0f} s; see the logs of the other ranks")
        for said in others:
            if store.check([said]):
                store.set(f"go/{store.get(said).decode()}", place)
        sleep(0.05)
    return PrefixStore(place, store)


def own_device(device: str) -> str:
    """The CUDA device of this process for ``cuda``; any other device as it is."""
    place = os.environ.get("LOCAL_RANK")
    return f"cuda:{place}" if device == "cuda" and place is not None else device
