"""Where the batches of some data will be."""

import torch
from torch import Tensor
from torch.utils.data import Dataset


def home(data: Tensor | Dataset, device: torch.device | str | None) -> torch.device:
    """The device asked for, or else the one where the data lie."""
    if device is not None:
        return torch.device(device)
    return data.device if isinstance(data, Tensor) else torch.device("cpu")
