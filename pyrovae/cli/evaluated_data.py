"""The test data that a run is evaluated on."""

from hashlib import sha256

from torch import Tensor
from torch.utils.data import Subset

from pyrovae.runtime.batches import Columns, batches


def first(tested: Columns, limit: int | None) -> Columns:
    """The first ``limit`` of the data, or all."""
    if limit is None or limit >= len(tested):
        return tested
    if isinstance(tested.x, Tensor):
        return tested.rows(slice(limit))
    return Columns(Subset(tested.x, range(limit)), {name: value[:limit] for name, value in tested.given.items()})


def fingerprint(tested: Columns) -> str:
    """The SHA-256 of the data and of which of their numbers were observed."""
    digest = sha256()
    for batch in batches(tested, 1000):
        for column in (batch.x, *(value for name, value in batch.given.items() if name == "mask")):
            digest.update(f"{tuple(column.shape)} {column.dtype}".encode())
            digest.update(column.contiguous().numpy().tobytes())
    return digest.hexdigest()
