"""Data files that came from a stranger."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from checks import refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strangers import Bomb, little_memory, payload, soon

from pyrovae.data import MNIST, Array, Images
from pyrovae.errors import InputError
from pyrovae.untrusted.idx import read_idx
from pyrovae.untrusted.image_files import ImageFiles
from pyrovae.untrusted.npz import opened_npz


@pytest.fixture(autouse=True)
def _soon():
    with soon():
        yield


def read_image(path: Path) -> np.ndarray:
    return ImageFiles([path], None, grayscale=False)[np.zeros(1, int)]


class TestNothingIsUnpickled:
    """Each of these leaves a mark where it is."""

    @pytest.fixture
    def mark(self, tmp_path):
        yield tmp_path / "mark"
        assert not (tmp_path / "mark").exists()

    def test_in_arrays(self, mark, tmp_path):
        objects = np.array([[Bomb(mark)]], dtype=object)
        np.save(tmp_path / "x.npy", objects, allow_pickle=True)
        np.savez(tmp_path / "x.npz", x=objects)
        np.savez(tmp_path / "y.npz", x=np.zeros((40, 2)), labels=objects)
        for name in ("x.npy", "x.npz", "y.npz"):
            with refused(name, "pickled", "np.savez"):
                Array(str(tmp_path / name))

    @pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt"])
    @pytest.mark.parametrize("protocol", [0, 2, 5])
    def test_in_the_place_of_arrays(self, name, protocol, mark, tmp_path):
        (tmp_path / name).write_bytes(payload(mark, protocol))
        with refused(name):
            Array(str(tmp_path / name))

    def test_behind_the_header_of_an_array(self, mark, tmp_path):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (40, 2)})
            file.write(payload(mark))
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.write(tmp_path / "x.npy", "x.npy")
        for name in ("x.npy", "x.npz"):
            with refused(name, "pickled", "np.savez"):
                Array(str(tmp_path / name))

    @pytest.mark.parametrize("kind", [MNIST])
    def test_in_the_place_of_idx_files_and_of_what_torchvision_once_kept(self, kind, root, mark):
        processed = root / "MNIST" / "processed"
        processed.mkdir()
        for name in ("training.pt", "test.pt"):
            (processed / name).write_bytes(payload(mark))
        kind(str(root), download=False, validation=8)
        (root / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(payload(mark))
        with refused("train-images-idx3-ubyte", "IDX", "00 00 08 03"):
            kind(str(root), download=False, validation=8)

    def test_in_the_place_of_images(self, mark, tmp_path):
        (tmp_path / "x.png").write_bytes(payload(mark))
        with refused("x.png", "WEBP"):
            read_image(tmp_path / "x.png")


class TestNothingIsAllocatedThatIsNotThere:
    """Headers claim anything."""

    @pytest.fixture(autouse=True)
    def little(self):
        with little_memory(300):
            yield

    @pytest.mark.parametrize("shape", [(2**40, 2), (2**62, 4), (2**31, 2**31), (-1, 4), (-2, -2), (2**64, 1)])
    @pytest.mark.parametrize("name", ["x.npy", "x.npz"])
    def test_a_shape(self, name, shape, tmp_path):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
            file.write(bytes(64))
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.write(tmp_path / "x.npy", "x.npy")
        with refused(name, "np.savez"):
            Array(str(tmp_path / name))

    def test_a_bomb(self, tmp_path, monkeypatch):
        monkeypatch.setattr("pyrovae.untrusted.npz.FREE", 2**20)
        np.savez_compressed(tmp_path / "x.npz", x=np.zeros((2**12, 2**10), np.uint8))
        with refused("x.npz", f"{2**22 + 128:,}", "np.savez"):
            Array(str(tmp_path / "x.npz"))

    def test_a_method_that_holds_a_dictionary_of_any_size(self, tmp_path):
        np.save(tmp_path / "x.npy", np.zeros((40, 2)))
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive:
            archive.write(tmp_path / "x.npy", "x.npy")
        with refused("x.npz", "x.npy", "method 14"):
            Array(str(tmp_path / "x.npz"))

    def test_many_arrays(self, tmp_path):
        np.savez(tmp_path / "x.npz", **{f"x{n}": np.zeros(1) for n in range(2000)})
        with refused("x.npz", "x0", "x1999", "labels"):
            Array(str(tmp_path / "x.npz"))

    def test_an_idx_file_that_is_all_holes(self, tmp_path):
        with (tmp_path / "x").open("wb") as file:
            file.write(bytes([0, 0, 8, 3]) + bytes([0, 0, 0, 9]) + bytes([0, 0, 0, 2]) * 2)
            file.truncate(2**40)
        with refused("x", 2**40, 52):
            read_idx(tmp_path / "x", (2, 2))

    def test_an_image_of_more_pixels_than_one_has(self, tmp_path):
        header = b"BM" + (2**30).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
        size = (2**15).to_bytes(4, "little")
        (tmp_path / "x.bmp").write_bytes(header + size * 2 + b"\1\0\x18\0" + bytes(24))
        with refused("x.bmp", "WEBP"):
            read_image(tmp_path / "x.bmp")


class TestNothingHangs:
    """Pipes keep whoever opens them waiting."""

    def test_on_a_pipe(self, tmp_path, root):
        os.mkfifo(tmp_path / "x.npy")
        with refused("x.npy", "missing"):
            Array(str(tmp_path / "x.npy"))
        os.mkfifo(tmp_path / "pipe")
        with refused("pipe"):
            read_idx(tmp_path / "pipe", ())
        (tmp_path / "images").mkdir()
        os.mkfifo(tmp_path / "images" / "x.png")
        with refused("x.png", "pipe"):
            read_image(tmp_path / "images" / "x.png")

    def test_on_folders_that_lead_back(self, images):
        folder = images({f"{name}/{i}.png": np.zeros((4, 4), np.uint8) for name in "ab" for i in range(10)})
        for name in "abcdef":
            (folder / "a" / f"link-{name}").symlink_to(folder)
        assert len(Images(str(folder)).train) == 15


def test_pillow_is_not_asked_to_run_another_program(tmp_path, monkeypatch):
    """A file of PostScript that is called a picture would be handed to Ghostscript."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was handed on"))
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    (tmp_path / "x.png").write_bytes(page)
    with refused("x.png", "WEBP"):
        read_image(tmp_path / "x.png")


several = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
plain = arrays.arrays(
    st.sampled_from(["<f4", "<f8", "|u1", "|b1", ">f8", "<i8", "<U3"]),
    arrays.array_shapes(min_dims=0, max_dims=3, max_side=5),
)


@several
@given(x=plain, compressed=st.booleans())
def test_what_numpy_saves_is_read_as_numpy_reads_it(x, compressed, tmp_path):
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=x)
    with opened_npz(path) as found:
        assert found.claims["x"] == (x.shape, x.dtype)
        np.testing.assert_array_equal(found.read("x"), x)


@several
@given(x=plain, cut=st.integers(1, 200))
def test_what_is_cut_short_is_refused(x, cut, tmp_path):
    for name, save in [("x.npy", np.save), ("x.npz", np.savez)]:
        save(tmp_path / name, x)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-cut])
        with pytest.raises(InputError):
            Array(str(tmp_path / name))


@several
@given(n=st.integers(1, 20), header=st.binary(max_size=24), rest=st.binary(max_size=80))
def test_idx_files_of_any_bytes(n, header, rest, tmp_path):
    path: Path = tmp_path / "x"
    good = bytes([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 2])
    path.write_bytes(good + bytes(4 * n))
    assert read_idx(path, (2, 2)).shape == (n, 2, 2)
    path.write_bytes(header + rest)
    if header + rest != good + bytes(4 * n):
        with pytest.raises(InputError):
            read_idx(path, (2, 2))
