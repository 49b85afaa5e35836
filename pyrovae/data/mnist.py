"""MNIST and Fashion-MNIST: 28 x 28 grey images of digits and of clothes, with an official test set."""

import tempfile
from pathlib import Path

import numpy as np

from pyrovae.data.base import Data
from pyrovae.data.labels import as_labels
from pyrovae.data.partition import with_official_test
from pyrovae.errors import InputError
from pyrovae.untrusted.idx import read_idx

files = {
    "train-images-idx3-ubyte": (28, 28),
    "train-labels-idx1-ubyte": (),
    "t10k-images-idx3-ubyte": (28, 28),
    "t10k-labels-idx1-ubyte": (),
}
"""The four files of a set, and the shape of an item in each."""


class MNIST(Data):
    """MNIST: 70,000 handwritten digits, 28 x 28 grey levels divided by 255; labels 0 to 9.

    The official test set of 10,000 is the test part; of the official training set of 60,000, ``validation`` images
    picked by the seed are the validation part. An index counts through the training file, then the test file.

    Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits" (1998).

    Args:
        root: the folder that holds ``MNIST/raw`` (or ``FashionMNIST/raw``) with the four uncompressed IDX files, as
            torchvision lays them out.
        download: whether to fetch the files through torchvision where one is missing; files that are there are read
            without a network and never replaced.
        binarize: ``none``, ``dynamic`` (drawn anew at each use), ``fixed`` or ``fixed(SEED)`` (drawn once), or
            ``threshold`` (1 from 0.5 on).
        validation: the number of training images that are set aside for validation.
        split_seed: fixes which training images these are.

    Raises:
        InputError: for files that are missing and cannot be fetched, truncated or not IDX; for an unknown
            ``binarize``; and for a ``validation`` that leaves a part empty.
    """

    def __init__(
        self,
        root: str = "data",
        *,
        download: bool = True,
        binarize: str = "none",
        validation: int = 5_000,
        split_seed: int = 0,
    ) -> None:
        images, labels, test = _read(Path(root).expanduser(), self.name, download)
        partition = with_official_test(len(images) - test, test, validation, split_seed)
        super().__init__(images, partition, labels=as_labels(labels, len(images), "labels"), binarize=binarize)

    @property
    def name(self) -> str:
        return type(self).__name__


class FashionMNIST(MNIST):
    """Fashion-MNIST: 70,000 photographs of clothes in ten classes, in the format of MNIST and with its arguments.

    The files are those of ``FashionMNIST/raw`` under ``root``.

    Source: "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms" (arXiv:1708.07747).
    """


def _read(root: Path, name: str, download: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Read images and labels, those of the training file before those of the test file, and the number of the latter."""
    raw = root / name / "raw"
    _provide(root, name, download)
    train, train_labels, test, test_labels = (read_idx(raw / file, shape) for file, shape in files.items())
    for images, labels, file in [(train, train_labels, "train"), (test, test_labels, "t10k")]:
        as_labels(labels, len(images), str(raw / f"{file}-labels-idx1-ubyte"))
    return np.concatenate([train, test]), np.concatenate([train_labels, test_labels]), len(test)


def _provide(root: Path, name: str, download: bool) -> None:
    missing = [file for file in files if not (root / name / "raw" / file).is_file()]
    if missing and not download:
        raise _absence(root, name, missing, "download=False keeps them from being fetched")
    if missing:
        try:
            _download(root, name, missing)
        except Exception as error:  # of the network, the disk or the archive
            cause = f"they could not be fetched ({' '.join(str(error).split())})"
            raise _absence(root, name, missing, cause) from error


def _absence(root: Path, name: str, missing: list[str], cause: str) -> InputError:
    return InputError(
        f"{root / name / 'raw'} lacks {', '.join(missing)}, and {cause}; expected {', '.join(files)}, uncompressed: put "
        f"them there, pass the root that holds {name}/raw, or pass download=True where there is a network"
    )


def _download(root: Path, name: str, missing: list[str]) -> None:
    """Fetch the set into a temporary folder and move what is missing, so that no half-written file is ever in place."""
    from torchvision import datasets  # takes a second to import

    raw = root / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=raw, prefix="download-") as temporary:
        fetched = getattr(datasets, name)(temporary, download=True).raw_folder
        for file in missing:
            Path(fetched, file).replace(raw / file)
