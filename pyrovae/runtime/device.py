"""The device that batches of data are moved to."""

import torch
from torch import Tensor

from pyrovae.runtime.batches import Columns


def home(data: Columns, device: torch.device | str | None) -> torch.device:
    """The requested device, by default that of the data; a CUDA device with its index."""
    if device is None:
        return data.x.device if isinstance(data.x, Tensor) else torch.device("cpu")
    device = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
