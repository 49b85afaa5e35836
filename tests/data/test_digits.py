import torch
from sklearn.datasets import load_digits

from pyrovae.data import Digits


def test_digits_are_those_of_scikit_learn():
    data = Digits()
    source = load_digits()
    assert data.event_shape == (8, 8)
    assert data.name == "Digits"
    assert [len(part) for part in (data.train, data.validation, data.test)] == [1347, 180, 270]
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.x * 16, torch.from_numpy(source.images[part.index]).float())
        assert part.labels.tolist() == source.target[part.index].tolist()
