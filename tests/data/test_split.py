import numpy as np
import pytest
import torch
from checks import refused
from torch import Tensor

from pyrovae.data import Array, Binarize, Split


def seeded(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@pytest.fixture
def split() -> Split:
    x = torch.rand(23, 4, 4, generator=seeded(0))
    return Split(x, torch.arange(23), np.arange(100, 123), Binarize("dynamic"))


def test_same_generator_same_batches(split):
    first, again, other = (torch.cat(list(split.batches(5, shuffle=True, generator=seeded(s)))) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_each_pass_orders_and_draws_anew(split):
    generator = seeded(1)
    first, second = (torch.cat(list(split.batches(5, shuffle=False, generator=generator))) for _ in range(2))
    assert set(first.unique().tolist()) == {0, 1}
    assert not torch.equal(first, second)


def test_torchs_own_generator_is_the_default(split):
    def one_pass() -> Tensor:
        torch.manual_seed(7)
        return torch.cat(list(split.batches(5, shuffle=True)))

    assert torch.equal(one_pass(), one_pass())


def test_order_is_drawn_at_once(split):
    generator = seeded(1)
    batches = split.batches(5, shuffle=True, generator=generator)
    drawn = generator.get_state()
    expected = seeded(1)
    torch.randperm(23, generator=expected)
    assert torch.equal(drawn, expected.get_state())
    assert len(list(batches)) == 5


def test_unshuffled_batches_keep_the_order(split):
    plain = Split(split.x, None, split.index, Binarize("none"))
    assert torch.equal(torch.cat(list(plain.batches(5, shuffle=False))), split.x)
    assert len(plain) == 23


def test_batch_size_below_one_is_refused(split):
    with refused("batch_size", 0):
        split.batches(0, shuffle=True)


def test_fixed_draw_with_negative_seed_is_refused(split):
    with refused("seed", -1, "2^64 - 1"):
        split.fixed_draw(-1)


def test_to_moves_data_and_labels(split):
    moved = split.to("meta")
    assert moved.x.device.type == moved.labels.device.type == "meta"
    assert moved.index is split.index
    assert Split(split.x, None, split.index, split.binarize).to("cpu").labels is None


def test_to_refuses_what_is_not_in_memory(npy):
    data = Array(str(npy(np.zeros((20, 2), np.float32))), in_memory=False)
    with refused("in_memory=True", "device='cpu'"):
        data.train.to("cpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("home", ["cpu", "cuda"])
@pytest.mark.parametrize("generator", ["cpu", "cuda"])
def test_batches_are_drawn_on_their_device(split, home, generator):
    resident = split.to(home)

    def one_pass(seed: int) -> Tensor:
        batches = list(resident.batches(5, shuffle=True, generator=seeded(seed, generator), device="cuda"))
        assert all(batch.is_cuda for batch in batches)
        return torch.cat(batches)

    assert torch.equal(one_pass(1), one_pass(1))
    assert not torch.equal(one_pass(1), one_pass(2))
    assert torch.equal(resident.fixed_draw(3).cpu(), split.fixed_draw(3))


def test_what_is_given_beside_the_data_is_in_each_batch(split):
    given = {"c": torch.arange(len(split), dtype=torch.float32)[:, None]}
    beside = Split(split.x, split.labels, split.index, Binarize.parse("none"), given)
    mappings = [*beside.batches(4, shuffle=False)]
    assert torch.equal(torch.cat([batch["x"] for batch in mappings]), split.x)
    assert torch.equal(torch.cat([batch["c"] for batch in mappings]), given["c"])
