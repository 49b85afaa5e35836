"""Where the batches of some data will be."""

import torch
from torch import Tensor

from pyrovae.runtime.batches import Columns


def home(data: Columns, device: torch.device | str | None) -> torch.device:
    """The device asked for, or else the one where the data lie; a CUDA device with its number."""
    if device is None:
        return data.x.device if isinstance(data.x, Tensor) else torch.device("cpu")
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
