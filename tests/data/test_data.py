"""What every data set keeps to: one contract, for each class that the package exports."""

import inspect
import re

import numpy as np
import pytest
import torch
from checks import refused
from torch import Tensor

import pyrovae.data
from pyrovae.data import Data, Digits

members = ["Digits", "MNIST", "FashionMNIST", "Array", "Array, lazy", "Array, npz", "Images", "Images, lazy"]
each = pytest.mark.parametrize("member", members)


def read(x) -> Tensor:
    return x if isinstance(x, Tensor) else torch.stack([x[i] for i in range(len(x))])


def test_no_class_escapes_the_contract():
    exported = (getattr(pyrovae.data, name) for name in pyrovae.data.__all__)
    sets = {
        kind.__name__
        for kind in exported
        if inspect.isclass(kind) and issubclass(kind, Data) and not inspect.isabstract(kind)
    }
    assert sets == {member.split(",")[0] for member in members}


@each
def test_parts_are_disjoint_and_cover(make, member):
    record = make[member]().record()
    assert list(record) == ["train", "validation", "test"]
    everything = np.concatenate(list(record.values()))
    assert everything.dtype == np.int64
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(everything)))


@each
def test_seed_fixes_the_split(make, member):
    first, again, other = (make[member](split_seed=seed) for seed in (3, 3, 4))
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(first.record()[part], again.record()[part])
        torch.testing.assert_close(read(getattr(first, part).x), read(getattr(again, part).x), rtol=0, atol=0)
    assert not np.array_equal(first.train.index, other.train.index)


@each
def test_data_are_float32_of_the_event_shape(make, member):
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        data = make[member]()
        for part in (data.train, data.validation, data.test):
            x = read(part.x)
            assert x.dtype == torch.float32
            assert x.shape == (len(part), *data.event_shape)
            assert 0 <= x.min() < x.max() <= 1
    finally:
        torch.set_default_dtype(default)


@each
def test_labels_are_one_a_datum_or_none(make, member):
    data = make[member]()
    for part in (data.train, data.validation, data.test):
        labelled = member not in ("Array", "Array, lazy", "Images")
        assert (part.labels is not None) == labelled
        if labelled:
            assert part.labels.shape == (len(part),)
            assert part.labels.dtype == torch.int64


@each
@pytest.mark.parametrize("binarize", ["fixed(3)", "threshold"])
def test_binarised_once(make, member, binarize):
    plain, first, again = make[member](), make[member](binarize=binarize), make[member](binarize=binarize)
    x, p = read(first.test.x), read(plain.test.x)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x, read(again.test.x))
    assert torch.equal(x, read(first.test.fixed_draw(5)))
    if binarize == "threshold":
        assert torch.equal(x, (p >= 0.5).float())


@each
def test_dynamic_keeps_probabilities_and_is_evaluated_by_one_fixed_draw(make, member):
    plain, dynamic, fixed = (make[member](binarize=binarize) for binarize in ("none", "dynamic", "fixed(3)"))
    assert torch.equal(read(dynamic.test.x), read(plain.test.x))
    assert torch.equal(read(dynamic.test.fixed_draw(3)), read(fixed.test.x))
    assert torch.equal(read(dynamic.test.fixed_draw()), read(make[member](binarize="fixed").test.x))
    assert not torch.equal(read(dynamic.test.fixed_draw(4)), read(fixed.test.x))


@each
def test_batches_hold_each_datum_once(make, member):
    part = make[member]().train
    batches = list(part.batches(8, shuffle=True, generator=torch.Generator().manual_seed(1)))
    assert [len(batch) for batch in batches[:-1]] == [8] * (len(batches) - 1)
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat(batches), read(part.x)[order])


@each
def test_repr_says_what_it_is(make, member):
    data = make[member](binarize="dynamic")
    assert re.match(r"[\w.]+: [\d,]+ train, [\d,]+ validation, [\d,]+ test, event shape \(", repr(data))
    assert repr(data).endswith("binarize=dynamic")


@each
def test_unknown_binarisation_is_refused(make, member):
    with refused("dynamc", '"dynamic"'):
        make[member](binarize="dynamc")


@each
def test_empty_part_is_refused(make, member):
    with refused("validation", 0):
        make[member](validation=0)
    if "MNIST" in member:
        with refused("validation=40", "train=0", 50):
            make[member](validation=40)


def test_arguments_come_from_yaml_and_command_line(tmp_path):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_argument("--data", type=Data)
    config = tmp_path / "config.yaml"
    config.write_text("data:\n  class_path: Digits\n  init_args: {binarize: fixed(3), test: 0.3}\n")
    given = parser.parse_args([f"--config={config}", "--data.test=0.2"])
    assert repr(parser.instantiate(given).data) == repr(Digits(binarize="fixed(3)", test=0.2))
