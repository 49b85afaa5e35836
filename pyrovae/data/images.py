"""Data from a folder of image files."""

from pathlib import Path

from pyrovae.data.base import Data
from pyrovae.data.image_folder import find_images
from pyrovae.data.partition import by_fractions
from pyrovae.errors import InputError
from pyrovae.untrusted.image_files import ImageFiles


class Images(Data):
    """Images from a folder: 8 bits a channel, divided by 255.

    The event shape is ``(H, W)`` for grey levels and ``(3, H, W)`` for colours. Images in the folder itself have no
    labels; those in its subfolders, at any depth, have the number of their subfolder in the order of the names, as in
    torchvision's ``ImageFolder``. Transparency is ignored, and so is a file or folder whose name begins with a dot.

    Args:
        folder: the folder.
        size: height and width, or the side of a square, to which each image is scaled and cropped about its centre;
            if null, all images must be of one size.
        grayscale: whether to read grey levels rather than colours.
        binarize: ``none``, ``dynamic`` (drawn anew at each use), ``fixed`` or ``fixed(SEED)`` (drawn once), or
            ``threshold`` (1 from 0.5 on).
        validation: the fraction of the data that is set aside for validation.
        test: the fraction of the data that is set aside for testing.
        split_seed: fixes which datum goes where; an index counts through the files in the order of their paths.
        in_memory: whether to hold the data in memory or read them as they are used; if null, in memory up to 2 GiB.

    Raises:
        InputError: for a folder that is missing, holds no images, or holds some beside subfolders of images; for an
            image that cannot be read, has more than 8 bits a channel, or another size than the first (at its first
            use if the data are not held in memory); for an unknown ``binarize``; and for fractions that leave a part
            empty.
    """

    def __init__(
        self,
        folder: str,
        *,
        size: int | tuple[int, int] | None = None,
        grayscale: bool = False,
        binarize: str = "none",
        validation: float = 0.1,
        test: float = 0.15,
        split_seed: int = 0,
        in_memory: bool | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        paths, labels = find_images(self.folder)
        partition = by_fractions(len(paths), validation, test, split_seed)
        source = ImageFiles(paths, _height_and_width(size), grayscale)
        super().__init__(source, partition, labels=labels, binarize=binarize, in_memory=in_memory)

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def _height_and_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"size is {size}; expected at least one pixel a side: pass a positive size")
    return height, width
