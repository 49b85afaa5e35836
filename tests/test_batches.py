import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pyrovae.batches import as_data, batches, size
from pyrovae.errors import InputError

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
    parts = [*batches(data, batch_size)]
    assert [len(part) for part in parts[:-1]] == [batch_size] * (len(parts) - 1)
    assert 1 <= len(parts[-1]) <= batch_size
    assert torch.equal(torch.cat(parts), x)


@sources
def test_in_the_order_given(data):
    order = torch.tensor([6, 0, 3, 3])
    parts = [*batches(data, 3, order=order)]
    assert [len(part) for part in parts] == [3, 1]
    assert torch.equal(torch.cat(parts), x[order])


def test_a_tensor_is_not_copied():
    first = next(batches(x, 3))
    assert first.data_ptr() == x.data_ptr()


@sources
def test_size_and_data_as_they_are(data):
    assert as_data(data) is data
    assert size(data) == 7


def test_an_array_becomes_a_tensor_of_its_type():
    data = as_data(np.zeros((3, 2), dtype=np.float32))
    assert data.dtype == torch.float32
    assert data.shape == (3, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([[1.0]], "data is a list; expected a tensor, a NumPy array or a torch.utils.data.Dataset"),
        (torch.tensor(1.0), "data is a single number; expected .* whose first axis counts the data"),
        (np.array(1.0), "data is a single number"),
        (torch.zeros(0, 2), "data is empty; expected at least one datum"),
        (TensorDataset(torch.zeros(0, 2)), "data is empty"),
    ],
    ids=["list", "number", "array of no axis", "empty tensor", "empty data set"],
)
def test_other_data_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        as_data(data)
