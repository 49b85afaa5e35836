import numpy as np
import pytest
import torch
from checks import refused
from torch.utils.data import Dataset, TensorDataset

from pyrovae.runtime.batches import Columns, as_batch, as_data, batches

x = torch.arange(14.0).reshape(7, 2)


class Unlabelled(Dataset):
    def __len__(self):
        return len(x)

    def __getitem__(self, index):
        return x[index]


sources = pytest.mark.parametrize(
    "data", [x, Unlabelled(), TensorDataset(x), TensorDataset(x, torch.zeros(7))], ids=["tensor", "plain", "x", "x, y"]
)


@sources
@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_every_datum_once_in_order(data, batch_size):
    parts = [*batches(as_data(data), batch_size)]
    assert [len(part) for part in parts[:-1]] == [batch_size] * (len(parts) - 1)
    assert 1 <= len(parts[-1]) <= batch_size
    assert torch.equal(torch.cat([part.x for part in parts]), x)


@sources
def test_in_the_order_given(data):
    order = torch.tensor([6, 0, 3, 3])
    parts = [*batches(as_data(data), 3, order=order)]
    assert [len(part) for part in parts] == [3, 1]
    assert torch.equal(torch.cat([part.x for part in parts]), x[order])


def test_a_tensor_is_not_copied():
    first = next(batches(Columns(x), 3))
    assert first.x.data_ptr() == x.data_ptr()


@sources
def test_size_and_data_as_they_are(data):
    columns = as_data(data)
    assert columns.x is columns.plain() is data
    assert len(columns) == 7


def test_an_array_becomes_a_tensor_of_its_type():
    data = as_data(np.zeros((3, 2), dtype=np.float32))
    assert data.x.dtype == torch.float32
    assert data.x.shape == (3, 2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            [[1.0]],
            ["list", "torch.utils.data.Dataset", "Split", "'x'"],
        ),
        (torch.tensor(1.0), ["number", "torch.utils.data.Dataset"]),
        (np.array(1.0), ["number", "torch.utils.data.Dataset"]),
        (torch.zeros(0, 2), ["empty"]),
        (TensorDataset(torch.zeros(0, 2)), ["empty"]),
    ],
    ids=["list", "number", "array of no axis", "empty tensor", "empty data set"],
)
def test_other_data_are_refused(data, words):
    with refused(*words):
        as_data(data)


class Named(Dataset):
    def __len__(self):
        return len(x)

    def __getitem__(self, index):
        return {"x": x[index], "mask": x[index] > 3}


given = {"c": torch.arange(7), "mask": x > 3}


@pytest.mark.parametrize(
    "data",
    [
        {"x": x, **given},
        {"c": given["c"].numpy(), "x": x.numpy(), "mask": given["mask"].numpy()},
        {"x": Named(), "c": given["c"]},
    ],
    ids=["tensors", "arrays", "items"],
)
@pytest.mark.parametrize("order", [None, torch.tensor([6, 0, 3, 3])], ids=["as stored", "in an order"])
def test_what_is_given_beside_the_data_goes_with_them(data, order):
    parts = [*batches(as_data(data), 3, order=order)]
    wanted = {"x": x, **given} if order is None else {name: value[order] for name, value in {"x": x, **given}.items()}
    found = [part.plain() for part in parts]
    for name, value in wanted.items():
        column = torch.cat([part[name] for part in found])
        assert column.dtype == value.dtype
        assert torch.equal(column, value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"mask": x > 3}, ["'mask'", "'x'"]),
        ({"x": x, "c": torch.zeros(6)}, ["data['c']", 6, "data['x']", 7]),
        ({"x": x, "c": [1, 2]}, ["data['c']", "list", "functools.partial(model, c=...)"]),
        ({"x": x, "c": Unlabelled()}, ["data['c']", "Unlabelled", "functools.partial(model, c=...)"]),
        ({"x": x[:0]}, ["data['x']", "empty"]),
    ],
    ids=["no x", "too few", "list", "data set", "empty"],
)
def test_other_mappings_are_refused(data, words):
    with refused(*words):
        as_data(data)


@pytest.mark.parametrize("scale", [0.5, "word", None, [1, 2]], ids=str)
def test_what_is_the_same_for_all_data_goes_to_the_programs(scale):
    with refused("'scale'", "functools.partial(model, scale=...)"):
        as_data({"x": x, "scale": scale})


def test_items_that_are_no_tensors_are_refused():
    class Worded(Named):
        def __getitem__(self, index):
            return {"x": x[index], "word": "a"}

    with refused("'word'", "functools.partial(model, word=...)"):
        next(batches(as_data(Worded()), 3))


def test_one_batch_of_a_data_set_is_all_of_it():
    assert torch.equal(as_batch(Unlabelled()).x, x)
    batch = as_batch(Named())
    assert torch.equal(batch.x, x)
    assert batch.given.keys() == {name for name in Named()[0] if name != "x"}
