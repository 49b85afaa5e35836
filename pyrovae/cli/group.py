"""Several processes that ``torchrun`` started: they train and estimate together, and the first alone writes and prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def joined(device: str) -> Iterator[bool]:
    """Within it this process is in the group that ``torchrun`` started, if it did; whether it is the first.

    Args:
        device: where it computes; the CUDA devices of a machine are dealt out to its processes by :func:`own_device`.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield True
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_cuda else "gloo")
    first, printed = distributed.get_rank() == 0, sys.stdout
    try:
        if not first:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (closed below)
        yield first
    finally:
        if not first:
            sys.stdout.close()
            sys.stdout = printed
        distributed.destroy_process_group()


def own_device(device: str) -> str:
    """Of the CUDA devices the one that is this process'; any other device as it is."""
    place = os.environ.get("LOCAL_RANK")
    return f"cuda:{place}" if device == "cuda" and place is not None else device
