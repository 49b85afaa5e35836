"""Spellings, ranges and distributions of the binarisations. The z-tests have level 1e-6, two-sided: |z| < 4.9."""

import numpy as np
import pytest
import torch
from checks import refused

from pyrovae.data import binarize
from pyrovae.data.binarize import Binarize, fixed_draws

index = np.arange(6)
bound = 4.9


def z(draws: torch.Tensor, x: torch.Tensor) -> float:
    """The standardised deviation of all draws, shape (R, *x.shape), from their probabilities."""
    deviation = (draws.double() - x.double()).sum()
    return float(deviation / (len(draws) * (x * (1 - x)).double().sum()).sqrt())


@pytest.mark.parametrize(
    ("text", "parsed", "spelling"),
    [
        ("none", Binarize("none"), "none"),
        ("dynamic", Binarize("dynamic"), "dynamic"),
        ("fixed", Binarize("fixed", 0), "fixed(0)"),
        ("fixed(12)", Binarize("fixed", 12), "fixed(12)"),
        ("threshold", Binarize("threshold"), "threshold"),
    ],
)
def test_spellings(text, parsed, spelling):
    assert Binarize.parse(text) == parsed
    assert str(parsed) == spelling


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("Dynamic", "dynamic"),
        ("fixed()", "fixed(0)"),
        ("fixed(-1)", "fixed(0)"),
        ("treshold", "threshold"),
        ("None", "none"),
    ],
)
def test_unknown_spelling_names_the_nearest(text, nearest):
    with refused(f'"{text}"', "none", "dynamic", "fixed", "fixed(SEED)", f'"{nearest}"'):
        Binarize.parse(text)


def test_seed_out_of_range_is_refused():
    with refused(2**64, "2^64 - 1"):
        Binarize.parse(f"fixed({2**64})")


@pytest.mark.parametrize("text", ["dynamic", "fixed(3)", "threshold"])
def test_values_outside_the_unit_interval_are_refused(text):
    x = torch.full((2, 3, 4), 0.5)
    x[1, 0, 2], x[1, 2, 3] = 1.5, -1
    with refused(2, "[0, 1]", "1.5 at [70, 0, 2]", 'binarize="none"'):
        Binarize.parse(text).store(x, np.array([10, 70]))
    assert torch.equal(Binarize.parse("none").store(x, index), x)


def test_threshold_counts_a_half_as_one():
    x = torch.tensor([[0.0, 0.49, 0.5, 1.0]])
    assert Binarize.parse("threshold").store(x, index).tolist() == [[0, 0, 1, 1]]


def test_dynamic_differs_between_uses_with_the_right_mean():
    x = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([Binarize.parse("dynamic").draw(x, generator) for _ in range(400)])
    assert not torch.equal(draws[0], draws[1])
    assert abs(z(draws, x)) < bound
    per_pixel = (draws.mean(0) - x) / (x * (1 - x) / 400).sqrt()
    assert per_pixel.abs().max() < 6  # 384 pixels: level 1e-6 by the union bound


@pytest.mark.parametrize("text", ["none", "fixed(3)", "threshold"])
def test_other_kinds_are_used_as_kept(text):
    x = torch.rand(6, 8)
    assert Binarize.parse(text).draw(x) is x


def test_fixed_draws_have_the_right_mean_and_keep_certainties():
    x = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0], x[:, 1] = 0, 1
    draws = torch.stack([fixed_draws(x, index, seed) for seed in range(400)])
    assert (draws[:, :, 0] == 0).all()
    assert (draws[:, :, 1] == 1).all()
    assert abs(z(draws, x)) < bound


def test_fixed_draws_depend_on_seed_and_index_alone():
    x = torch.rand(6, 8, 8)
    draws = fixed_draws(x, index, 3)
    assert torch.equal(draws, fixed_draws(x, index, 3))
    assert torch.equal(draws[[4, 1]], fixed_draws(x[[4, 1]], np.array([4, 1]), 3))
    assert not torch.equal(draws, fixed_draws(x, index, 4))
    same = x[:1].expand_as(x)
    assert not torch.equal(fixed_draws(same, index, 4)[:-1], fixed_draws(same, index, 3)[1:])


def test_fixed_draw_of_a_zero_is_zero_even_where_the_uniform_number_is(monkeypatch):
    class Zeros:
        def random(self, out, dtype):
            out[...] = 0

    monkeypatch.setattr(binarize, "_stream", lambda seed, i: Zeros())
    assert fixed_draws(torch.tensor([[0.0, 1e-30, 1.0]]), index[:1], 0).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("shift", ["datum", "seed"])
def test_fixed_draws_are_independent_across_data_and_seeds(shift):
    x = torch.full((500, 64), 0.5)
    i = np.arange(500)
    first = fixed_draws(x, i, 7)
    second = fixed_draws(x, i + 1, 7) if shift == "datum" else fixed_draws(x, i, 8)
    agreement = (first == second).float()
    assert abs(z(agreement[None], x)) < bound
