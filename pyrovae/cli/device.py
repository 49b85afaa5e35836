"""The device that a command computes on."""

import torch

from pyrovae.errors import InputError
from pyrovae.experiment.parser import Namespace
from pyrovae.training.settings import require_device


def default_device(config: Namespace | None = None) -> str:
    """The device that the configuration names, else CUDA where there is one."""
    asked = config.training.device if config is not None else None
    return asked or ("cuda" if torch.cuda.is_available() else "cpu")


def available_device(asked: str | None, trained: str) -> str:
    """The requested device, by default that of the training if it is available, or else the CPU."""
    if asked is not None:
        require_device(asked)
        return asked
    try:
        require_device(trained)
    except InputError:
        return "cpu"
    return trained
