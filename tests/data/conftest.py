"""Small files to read: NumPy arrays, IDX files as MNIST has them, folders of images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyrovae.data import MNIST, Array, Data, Digits, FashionMNIST, Images

Write = Callable[..., Path]


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    """Random grey levels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_images(folder: Path, content: dict[str, np.ndarray] | np.ndarray) -> Path:
    """Write PNG files, given as ``{name: array}`` or as one array of shape (N, H, W) or (N, H, W, 3)."""
    if isinstance(content, np.ndarray):
        content = {f"{i:03}.png": x for i, x in enumerate(content)}
    for name, x in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    return folder


def write_idx(path: Path, x: np.ndarray) -> None:
    header = bytes([0, 0, 8, x.ndim]) + b"".join(n.to_bytes(4, "big") for n in x.shape)
    path.write_bytes(header + x.tobytes())


def write_sets(root: Path) -> Path:
    """The files of MNIST and Fashion-MNIST, with 40 training and 10 test images each."""
    for name in ("MNIST", "FashionMNIST"):
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        for part, n in [("train", 40), ("t10k", 10)]:
            write_idx(raw / f"{part}-images-idx3-ubyte", pixels(n, 28, 28, seed=n))
            write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return root


@pytest.fixture
def npy(tmp_path: Path) -> Write:
    def write(x: object, name: str = "x.npy") -> Path:
        np.save(tmp_path / name, np.asarray(x), allow_pickle=True)
        return tmp_path / name

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Write:
    def write(**arrays: np.ndarray) -> Path:
        np.savez_compressed(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return write


@pytest.fixture
def images(tmp_path: Path) -> Write:
    return partial(write_images, tmp_path / "images")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with small sets in the place of MNIST and Fashion-MNIST."""
    return write_sets(tmp_path)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[..., Data]]:
    """A small member of each class of data, as a function of the other arguments."""
    folder = tmp_path_factory.mktemp("data")
    root, x, labels = str(write_sets(folder)), pixels(30, 3, 5), np.arange(30) % 3
    np.save(folder / "x.npy", x)
    np.savez(folder / "x.npz", x=x, labels=labels)
    plain = write_images(folder / "plain", x)
    classed = write_images(folder / "classed", {f"{i % 3}/{i}.png": x for i, x in enumerate(pixels(30, 4, 6, 3))})
    return {
        "Digits": Digits,
        "MNIST": partial(MNIST, root, validation=8),
        "FashionMNIST": partial(FashionMNIST, root, validation=8),
        "Array": partial(Array, str(folder / "x.npy")),
        "Array, lazy": partial(Array, str(folder / "x.npy"), in_memory=False),
        "Array, npz": partial(Array, str(folder / "x.npz")),
        "Images": partial(Images, str(plain), grayscale=True),
        "Images, lazy": partial(Images, str(classed), in_memory=False),
    }
