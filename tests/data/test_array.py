"""A user's arrays: what is taken, how it is read from a file that does not fit in memory, and what is refused."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from checks import refused

from pyrovae.data import Array, base

x = np.random.default_rng(0).random((40, 3, 5))


def everything(data: Array) -> torch.Tensor:
    """All data in the order of the file."""
    found = torch.empty(40, *data.event_shape, dtype=torch.float32)
    for part in (data.train, data.validation, data.test):
        found[part.index] = torch.stack([part.x[i] for i in range(len(part))])
    return found


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "?"])
def test_floats_and_bools_are_taken_as_they_are(npy, dtype, in_memory):
    stored = np.round(x).astype(dtype) if dtype == "?" else x.astype(dtype)
    data = Array(str(npy(stored)), in_memory=in_memory)
    np.testing.assert_array_equal(everything(data).numpy(), stored.astype(np.float32))
    assert data.name == "x"


@pytest.mark.parametrize("in_memory", [True, False])
def test_uint8_is_divided_by_255(npy, in_memory):
    stored = (x * 255).astype(np.uint8)
    np.testing.assert_array_equal(
        everything(Array(str(npy(stored)), in_memory=in_memory)).numpy(), stored.astype(np.float32) / np.float32(255)
    )


@pytest.mark.parametrize("shape", [(40, 2), (40, 1, 28, 28), (40, 2, 3, 4, 5)])
def test_any_event_shape(npy, shape):
    assert Array(str(npy(np.zeros(shape)))).event_shape == shape[1:]


def test_values_outside_the_unit_interval_are_fine_unless_binarised(npy):
    path = str(npy(x * 10 - 5))
    np.testing.assert_array_equal(everything(Array(path)).numpy(), (x * 10 - 5).astype(np.float32))
    with refused("[0, 1]", "[0, 0, 0]", 'binarize="dynamic"', 'binarize="none"'):
        Array(path, binarize="dynamic")


@pytest.mark.parametrize("names", [("x", "labels"), ("x", "y"), ("pictures", "y")])
def test_npz_holds_data_and_labels(npz, names):
    labels = np.arange(40, dtype=np.uint8)
    data = Array(str(npz(**dict(zip(names, (x, labels), strict=True)))))
    np.testing.assert_array_equal(everything(data).numpy(), x.astype(np.float32))
    assert data.train.labels.tolist() == data.train.index.tolist()


def test_npz_with_one_array_under_any_name_has_no_labels(npz):
    data = Array(str(npz(pictures=x)))
    assert data.test.labels is None
    np.testing.assert_array_equal(everything(data).numpy(), x.astype(np.float32))


@pytest.mark.parametrize("binarize", ["none", "dynamic", "fixed(3)", "threshold"])
def test_lazy_equals_in_memory_item_for_item(npy, binarize):
    path = str(npy(x))
    eager, lazy = (Array(path, binarize=binarize, in_memory=in_memory) for in_memory in (True, False))
    assert isinstance(eager.train.x, torch.Tensor)
    assert not isinstance(lazy.train.x, torch.Tensor)
    assert torch.equal(everything(lazy), everything(eager))
    draw = lazy.test.fixed_draw(5)
    assert torch.equal(torch.stack([draw[i] for i in range(len(draw))]), eager.test.fixed_draw(5))
    batches = [
        torch.cat(list(data.train.batches(7, shuffle=True, generator=torch.Generator().manual_seed(1))))
        for data in (eager, lazy)
    ]
    assert torch.equal(*batches)


def test_size_decides_what_is_held_in_memory(npy, npz, monkeypatch):
    path = str(npy(x.astype(np.uint8)))
    monkeypatch.setattr(base, "memory_limit", 4 * x.size)
    assert isinstance(Array(path).train.x, torch.Tensor)
    monkeypatch.setattr(base, "memory_limit", 4 * x.size - 1)
    assert not isinstance(Array(path).train.x, torch.Tensor)
    large = Array(str(npz(x=x.astype(np.uint8))))
    assert not isinstance(large.train.x, torch.Tensor)
    assert torch.equal(everything(large), everything(Array(path, in_memory=True)))


def test_other_processes_map_the_file_and_read_the_same(npy):
    data = Array(str(npy(np.random.default_rng(0).random((40, 1000)))), in_memory=False)
    pickled = pickle.dumps(data.train.x)
    assert len(pickled) < 10_000
    assert torch.equal(pickle.loads(pickled)[3], data.train.x[3])
    alone, helped = (torch.cat(list(data.train.batches(7, shuffle=False, workers=workers))) for workers in (0, 1))
    assert torch.equal(alone, helped)


def broken(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return path


refusals = {
    "float32 with NaN": (
        lambda: marked(np.nan, np.inf),
        [2, "float32", "nan at [7, 1, 2]"],
    ),
    "infinite": (lambda: marked(-np.inf), [1, "float32", "-inf at [7, 1, 2]"]),
    "too large": (lambda: marked(1e300), [1, "float32", "inf at [7, 1, 2]"]),
    "complex": (lambda: x.astype(complex), ["complex128", "uint8", "bool"]),
    "strings": (lambda: x.astype(str), ["str1024", "uint8", "bool"]),
    "integers": (lambda: x.astype(np.int64), ["int64", "uint8", 255, "x.astype(np.float32)"]),
    "objects": (
        lambda: np.array([[{}]] * 9, dtype=object),
        ["pickled", "np.savez"],
    ),
    "no axis": (lambda: np.array(3.0), ["()", "(N, *event_shape)", "x.reshape(N, -1)"]),
    "one axis": (lambda: np.zeros(9), ["(9,)", "(N, *event_shape)"]),
    "no data": (lambda: np.zeros((0, 8, 8)), ["empty", "(0, 8, 8)", "(N, *event_shape)"]),
    "no pixels": (lambda: np.zeros((9, 0)), ["empty", "(9, 0)", "(N, *event_shape)"]),
    "too few": (lambda: x[:2], ["train=2", "validation=0"]),
}


def marked(*values: float) -> np.ndarray:
    array = x.copy()
    array[7, 1, 2 : 2 + len(values)] = values
    return array


@pytest.mark.parametrize("case", refusals)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_bad_array_is_refused(tmp_path, npy, npz, kind, case):
    make, words = refusals[case]
    path = npy(make()) if kind == "npy" else npz(x=make())
    with refused(*words):
        Array(str(path))
    assert list(tmp_path.iterdir()) == [path]


def test_lazy_data_are_refused_at_their_first_use(npy):
    data = Array(str(npy(marked(np.nan))), in_memory=False)
    with refused(1, "float32", "nan at [7, 1, 2]"):
        everything(data)
    data = Array(str(npy(marked(3.0))), in_memory=False, binarize="dynamic")
    with refused(1, "[0, 1]", "3 at [7, 1, 2]"):
        everything(data)


@pytest.mark.parametrize("kind", ["npy", "npz"])
@pytest.mark.parametrize("size", [7, 60, 1000])
def test_truncated_file_is_refused(npy, npz, kind, size):
    path = broken(npy(x) if kind == "npy" else npz(x=x), size)
    with refused(path, "np.savez"):
        Array(str(path))


@pytest.mark.parametrize("damage", [(b"}", b"m"), (b"(40,", b"(-4,"), (b"<f8", b"<q8"), (b"(40, 3", b"(40,93")])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_damaged_header_is_refused(tmp_path, npy, kind, damage):
    path = npy(x)
    path.write_bytes(path.read_bytes().replace(*damage))
    if kind == "npz":
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            file.write(path, "x.npy")
        path = tmp_path / "x.npz"
    with refused(path, "np.savez"):
        Array(str(path))


def test_corrupt_npz_is_refused(npz):
    path = npz(x=x)
    content = bytearray(path.read_bytes())
    content[1500:1600] = bytes(100)
    path.write_bytes(content)
    with refused(path, "np.savez"):
        Array(str(path))


def test_pickle_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(pickle.dumps(x))
    with refused("x.npy", ".npz", "np.save"):
        Array(str(path))


def test_missing_file_is_refused(tmp_path):
    with refused("absent.npy", "missing"):
        Array(str(tmp_path / "absent.npy"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keys", [("x", "z"), ("a", "b"), ("labels",), ("x", "labels", "y"), ()])
def test_unknown_keys_are_refused(npz, keys):
    arrays = {key: np.arange(40) if key in ("labels", "y") else x for key in keys}
    with refused(*keys, "x", "labels", "y"):
        Array(str(npz(**arrays)))


def test_wrong_labels_are_refused(npz):
    with refused("labels", (39,), (40,)):
        Array(str(npz(x=x, labels=np.arange(39))))
    with refused("labels", "float64", "int64"):
        Array(str(npz(x=x, labels=np.zeros(40))))


def test_lazy_npz_is_refused(npz):
    with refused("in_memory=False", ".npy", "np.save"):
        Array(str(npz(x=x)), in_memory=False)
