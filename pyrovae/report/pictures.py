"""Data as small pictures inside the page, addresses of the form ``data:image/png;base64,...``."""

from base64 import b64encode
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pyrovae.plots.tiles import as_pictures

UNOBSERVED = (250, 204, 160)
"""Colour of a pixel that was not observed, which neither grey pictures nor most others have."""


def shrunk(x: Tensor, numbers: int) -> np.ndarray:
    """Average pictures, as :func:`~pyrovae.plots.tiles.as_pictures` returns them, over areas until few numbers are left.

    Args:
        x: shape ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, 3, H, W)``; NaN is a pixel that was not observed.
        numbers: how many one picture may have.
    """
    pictures = as_pictures(x)
    factor = (numbers / pictures[0].size) ** 0.5
    if factor >= 1:
        return pictures
    grey = pictures.ndim == 3
    channels = torch.from_numpy(pictures)[:, None] if grey else torch.from_numpy(pictures).movedim(-1, 1)
    sides = [max(1, int(side * factor)) for side in pictures.shape[1:3]]
    small = interpolate(channels, sides, mode="area")
    return (small[:, 0] if grey else small.movedim(1, -1)).numpy()


def data_uris(pictures: np.ndarray) -> list[str]:
    """Encode each picture as an address; 0 is black and 1 is white, unless values beyond stretch the scale of all."""
    low, high = np.nanmin(pictures, initial=0.0), np.nanmax(pictures, initial=1.0)
    levels = np.nan_to_num((pictures - low) / (high - low) * 255).round().astype(np.uint8)
    return [_address(_coloured(*seen)) for seen in zip(levels, np.asarray(np.isnan(pictures)), strict=True)]


def _coloured(levels: np.ndarray, unobserved: np.ndarray) -> np.ndarray:
    """Colour the pixels of a picture that were not observed."""
    if not np.any(unobserved):
        return levels
    colours = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, -1)
    hidden = unobserved if unobserved.ndim == 2 else np.any(unobserved, -1)
    return np.where(hidden[..., None], np.array(UNOBSERVED, np.uint8), colours)


def _address(picture: np.ndarray) -> str:
    with BytesIO() as file:
        Image.fromarray(picture).save(file, "PNG", optimize=True)
        return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
