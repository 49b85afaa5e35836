"""Read image files as arrays of ``uint8``."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pyrovae.errors import InputError
from pyrovae.untrusted.bounded_files import opened

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever a file is called: Pillow hands some of the others to other programs."""


class ImageFiles:
    """Image files of one size, each opened when it is indexed.

    Args:
        paths: the files.
        size: height and width to which each image is scaled and cropped about its centre; if None, all must have the
            size of the first.
        grayscale: whether to read grey levels, shape ``(N, H, W)``, or colours, shape ``(N, 3, H, W)``.

    Raises:
        InputError: naming the file, for one that cannot be read, has more than 8 bits a channel, or another size.
    """

    def __init__(self, paths: list[Path], size: tuple[int, int] | None, grayscale: bool) -> None:
        self.paths = paths
        self.size = size
        self.grayscale = grayscale
        self.shape = (len(paths), *self._read(paths[0]).shape)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        x = np.empty((len(index), *self.shape[1:]), np.uint8)
        for row, i in enumerate(index):
            x[row] = self._of_one_size(self.paths[i])
        return x

    def _of_one_size(self, path: Path) -> np.ndarray:
        x = self._read(path)
        if x.shape != self.shape[1:]:
            found, first = (" x ".join(map(str, shape[-2:])) for shape in (x.shape, self.shape))
            raise InputError(
                f"{path} has {found} pixels and {self.paths[0]} {first}; expected images of one size: pass the size to "
                f"which they are scaled and cropped"
            )
        return x

    def _read(self, path: Path) -> np.ndarray:
        image = _load(path).convert("L" if self.grayscale else "RGB")
        if self.size is not None:
            height, width = self.size
            image = ImageOps.fit(image, (width, height))
        x = np.asarray(image)
        return x if self.grayscale else np.moveaxis(x, -1, 0)


def _load(path: Path) -> Image.Image:
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            image.load()
    except InputError:
        raise
    except Exception as error:  # damage ends in errors of a dozen types
        raise InputError(
            f"{path} cannot be read ({error}); expected a whole image ({', '.join(FORMATS)}): repair or remove it"
        ) from error
    if image.mode[0] in "IF":
        raise InputError(
            f"{path} has more than 8 bits a channel (mode {image.mode}); expected 8: convert the images, or save them "
            f"as one .npy of floats for Array"
        )
    return image
