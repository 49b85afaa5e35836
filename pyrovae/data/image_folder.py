"""The image files in a folder, and their classes if they are in subfolders."""

import os
from pathlib import Path

import torch
from torch import Tensor

from pyrovae.errors import InputError

suffixes = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def find_images(folder: Path) -> tuple[list[Path], Tensor | None]:
    """Find the image files in the order of their paths, and, if they are in subfolders, the number of each one's subfolder.

    Subfolders without images do not count.

    Raises:
        InputError: for a folder that is missing, holds no images, or holds some beside subfolders of images.
    """
    if not folder.is_dir():
        raise InputError(f"{folder.absolute()} is missing, or is not a folder; expected a folder of images: check the path")
    paths = _images(folder)
    classes = [path.relative_to(folder).parts[0] for path in paths if path.parent != folder]
    _check_one_layout(folder, len(paths) - len(classes), len(classes))
    number = {name: i for i, name in enumerate(sorted(set(classes)))}
    return paths, torch.tensor([number[name] for name in classes]) if classes else None


def _images(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name[0] != "." and not _leads_back(Path(parent, name))]
        found += [Path(parent, name) for name in files if name[0] != "."]
    return sorted(path for path in found if path.suffix.lower() in suffixes)


def _leads_back(folder: Path) -> bool:
    """Return whether it is a link to a folder that it lies in, which would be walked for ever."""
    return folder.is_symlink() and any(parent.samefile(folder) for parent in folder.absolute().parents)


def _check_one_layout(folder: Path, flat: int, nested: int) -> None:
    if not flat and not nested:
        endings = ", ".join(sorted(suffixes))
        raise InputError(f"{folder} holds no images; expected files that end in {endings}: check the path")
    if flat and nested:
        raise InputError(
            f"{folder} holds {flat} images itself and {nested} in subfolders; expected either images alone or a "
            f"subfolder for each class: move one or the other away"
        )
