"""MNIST and Fashion-MNIST: small files in their format here, the sets themselves under the mark ``mnist``."""

import os
import socket
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from checks import refused

from pyrovae.data import MNIST, FashionMNIST

both = pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
image_file, label_file = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture
def no_network(monkeypatch):
    """Fail whatever would fetch."""

    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)


@pytest.fixture
def network(monkeypatch, root):
    """Fetch from the small sets; answers the list of what was fetched."""
    fetched = []

    def fetch(url, download_root, filename, md5):
        name = "FashionMNIST" if "fashion" in url else "MNIST"
        file = filename.removesuffix(".gz")
        fetched.append(file)
        Path(download_root, file).write_bytes((root / name / "raw" / file).read_bytes())

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    return fetched


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@both
def test_read_from_files_without_network(root, kind, no_network):
    before = files(root)
    data = kind(str(root), validation=8)
    assert data.name == kind.__name__
    assert data.event_shape == (28, 28)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [32, 8, 10]
    assert data.test.labels.tolist() == list(range(10))
    assert torch.equal(data.validation.labels, torch.from_numpy(data.validation.index % 10))
    stored = np.frombuffer(before[f"{kind.__name__}/raw/t10k-images-idx3-ubyte"][16:], np.uint8)
    assert (data.test.x.numpy().ravel() * 255).round().tolist() == stored.tolist()
    assert files(root) == before


@both
def test_missing_files_are_fetched_once(tmp_path, kind, network):
    target = tmp_path / "fresh" / "folder"
    first = kind(str(target), validation=8)
    assert len(network) == 4
    assert sorted(files(target)) == sorted(
        f"{kind.__name__}/raw/{part}-{file}-ubyte" for part in ("train", "t10k") for file in ("images-idx3", "labels-idx1")
    )
    again = kind(str(target), validation=8)
    assert len(network) == 4
    assert torch.equal(first.train.x, again.train.x)


def test_present_files_are_never_replaced(tmp_path, network):
    present = tmp_path / "fresh" / "MNIST" / "raw" / label_file
    present.parent.mkdir(parents=True)
    mine = bytes([0, 0, 8, 1, 0, 0, 0, 40]) + bytes([7] * 40)
    present.write_bytes(mine)
    assert set(MNIST(str(tmp_path / "fresh"), validation=8).train.labels.tolist()) == {7}
    assert present.read_bytes() == mine


@both
def test_missing_files_without_download_are_refused(tmp_path, kind):
    files_of = tmp_path / kind.__name__ / "raw"
    with refused(files_of, image_file, label_file, "t10k-images-idx3-ubyte", "download=False", "download=True"):
        kind(str(tmp_path), download=False)
    assert not list(tmp_path.iterdir())


@both
def test_failed_download_is_refused_and_leaves_no_file(tmp_path, kind, no_network):
    with refused("train-images-idx3-ubyte", "Error downloading train-images", "no network", "download=True"):
        kind(str(tmp_path))
    assert not files(tmp_path)


def damaged(content: bytes, how: str) -> bytes:
    return {
        "truncated": content[:-1],
        "too long": content + b"\0",
        "magic": b"\x1f\x8b" + content[2:],
        "type": content[:2] + b"\x0d" + content[3:],
        "header": content[:9],
        "nothing": b"",
        "no data": content[:4] + bytes(4) + content[8:],
        "shape": content[:8] + bytes([0, 0, 0, 14, 0, 0, 0, 56]) + content[16:],
    }[how]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", [31375, 31376, (40, 28, 28)]),
        ("too long", [31377, 31376, (40, 28, 28)]),
        ("magic", ["1f 8b 08 03", "00 00 08 03"]),
        ("type", ["00 00 0d 03", "00 00 08 03"]),
        ("header", ["0, 0)", "(N, 28, 28)"]),
        ("nothing", ["IDX", "00 00 08 03"]),
        ("no data", [(0, 28, 28), "(N, 28, 28)"]),
        ("shape", [(40, 14, 56), "(N, 28, 28)"]),
    ],
)
def test_damaged_file_is_refused(root, how, words):
    path = root / "MNIST" / "raw" / image_file
    path.write_bytes(damaged(path.read_bytes(), how))
    before = files(root)
    with refused(image_file, *words):
        MNIST(str(root), validation=8)
    assert files(root) == before


def test_label_count_that_differs_is_refused(root):
    (root / "MNIST" / "raw" / label_file).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 39]) + bytes(39))
    with refused(label_file, (39,), (40,)):
        MNIST(str(root), validation=8)


@pytest.mark.mnist
@pytest.mark.skipif("PYROVAE_DATA" not in os.environ, reason="PYROVAE_DATA is not set")
@pytest.mark.parametrize(("kind", "mean"), [(MNIST, 0.1307), pytest.param(FashionMNIST, 0.2860, marks=pytest.mark.slow)])
def test_the_sets_themselves(kind, mean, no_network):
    from torchvision import datasets

    root = os.environ["PYROVAE_DATA"]
    data = kind(root)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert (data.train.x.mean() * 55 + data.validation.x.mean() * 5) / 60 == pytest.approx(mean, abs=5e-5)
    for part, official in [(data.validation, True), (data.test, False)]:
        reference = getattr(datasets, kind.__name__)(root, train=official)
        index = part.index if official else part.index - 60_000
        assert torch.equal(part.x, reference.data[index].float() / 255)
        assert torch.equal(part.labels, reference.targets[index])
    np.testing.assert_array_equal(data.test.index, np.arange(60_000, 70_000))
