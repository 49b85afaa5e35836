"""Training and validation data as splits, where they are needed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrovae.data.binarize import Binarize
from pyrovae.data.split import Split
from pyrovae.runtime.batches import as_data


def as_split(data: Any) -> Split:
    """Return data as a split; data that are none are used as they are, without binarisation."""
    if isinstance(data, Split):
        return data
    columns = as_data(data)
    return Split(columns.x, None, np.arange(len(columns)), Binarize.parse("none"), columns.given)


def with_fixed_draw(split: Split, seed: int) -> Split:
    """Return the split with one draw of its binarisation, so that epochs are judged on the same data."""
    return as_split(split.fixed_draw(seed))


def moved_to(split: Split, device: torch.device) -> Split:
    """Return the split on the device, where its data are in memory and take no more than half of what is free there."""
    if not isinstance(split.x, Tensor) or (
        device.type == "cuda"
        and sum(column.nbytes for column in split.columns.tensors) > torch.cuda.mem_get_info(device)[0] / 2
    ):
        return split
    return split.to(device)
