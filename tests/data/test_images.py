import numpy as np
import pytest
import torch
from checks import refused
from PIL import Image

from pyrovae.data import Images


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def everything(data: Images) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All images and labels in the order of the files."""
    parts = (data.train, data.validation, data.test)
    order = np.argsort(np.concatenate([part.index for part in parts]))
    x = torch.stack([part.x[i] for part in parts for i in range(len(part))])[order]
    return x, None if data.train.labels is None else torch.cat([part.labels for part in parts])[order]


@pytest.mark.parametrize("in_memory", [True, False])
def test_colours_come_first(images, in_memory):
    x = pixels(20, 4, 6, 3)
    data = Images(str(images(x)), in_memory=in_memory)
    assert data.event_shape == (3, 4, 6)
    assert data.name == "images"
    assert torch.equal(everything(data)[0], torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255)
    assert isinstance(data.train.x, torch.Tensor) == in_memory


def test_grey_levels_have_no_channel(images):
    x = pixels(20, 4, 6)
    data = Images(str(images(x)), grayscale=True)
    assert data.event_shape == (4, 6)
    assert torch.equal(everything(data)[0], torch.from_numpy(x).float() / 255)
    assert data.train.labels is None


def test_subfolders_are_classes_as_in_torchvision(images):
    from torchvision.datasets import ImageFolder

    names = [f"{name}/{i}.png" for name in ("cat", "ape/far", "bee") for i in range(7)]
    folder = images(dict(zip(names, pixels(21, 4, 4, 3), strict=True)))
    images({".cache/0.png": pixels(2, 2, 3), "cat/.0.png": pixels(2, 2, 3)})
    (folder / "notes.txt").write_text("no image")
    (folder / "none").mkdir()
    x, labels = everything(Images(str(folder)))
    assert labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    (folder / "none").rmdir()
    (folder / "cat" / ".0.png").unlink()
    (folder / ".cache" / "0.png").unlink()
    (folder / ".cache").rmdir()
    for (image, label), found, number in zip(ImageFolder(folder), x, labels, strict=True):
        assert label == number
        assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, found)


@pytest.mark.parametrize(("size", "shape"), [(5, (5, 5)), ((4, 8), (4, 8))])
def test_size_scales_and_crops(images, size, shape):
    wide = np.zeros((6, 18), np.uint8)
    wide[:, 6:12] = 200
    folder = images({f"{i}.png": wide if i % 2 else pixels(9, 7) for i in range(20)})
    x, _ = everything(Images(str(folder), size=size, grayscale=True))
    assert x.shape == (20, *shape)
    if size == 5:  # the centre of the wide image is one grey
        assert x[1].mean() * 255 == pytest.approx(200, abs=8)


def test_other_modes_are_converted(images):
    folder = images(pixels(18, 4, 4, 3))
    Image.fromarray(pixels(4, 4, 4), "RGBA").save(folder / "x.png")
    Image.fromarray(pixels(4, 4, 3)).convert("P").save(folder / "y.gif")
    Image.fromarray(pixels(4, 4)).save(folder / "z.JPG")
    assert everything(Images(str(folder)))[0].shape == (21, 3, 4, 4)


@pytest.mark.parametrize("in_memory", [True, False])
def test_unequal_sizes_are_refused(images, in_memory):
    folder = images({f"{i}.png": pixels(4, 5 + (i == 7)) for i in range(20)})
    with refused("7.png", "4 x 6", "0.png", "4 x 5", "size"):
        everything(Images(str(folder), in_memory=in_memory))


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_image_is_refused(images, content):
    folder = images(pixels(20, 16, 16))
    path = folder / "007.png"
    path.write_bytes(path.read_bytes()[:120] if content is None else content)
    with refused("007.png", "WEBP"):
        Images(str(folder))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_more_than_eight_bits_are_refused(images, dtype):
    folder = images({f"{i}.tif": x for i, x in enumerate(pixels(20, 4, 4).astype(dtype))})
    with refused("0.tif", "mode I", 8, "Array"):
        Images(str(folder))


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with refused(tmp_path, ".bmp", ".gif"):
        Images(str(tmp_path))
    with refused("absent", "missing"):
        Images(str(tmp_path / "absent"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_images_beside_subfolders_are_refused(images):
    folder = images({"0.png": pixels(4, 4), "cat/1.png": pixels(4, 4), "cat/2.png": pixels(4, 4)})
    with refused(folder, 1, 2, "subfolders"):
        Images(str(folder))


@pytest.mark.parametrize("size", [0, (4, -1)])
def test_size_without_pixels_is_refused(images, size):
    with refused("size", size):
        Images(str(images(pixels(20, 4, 4))), size=size)
