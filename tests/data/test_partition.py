import numpy as np
import pytest
from checks import refused

from pyrovae.data import Digits
from pyrovae.data.partition import by_fractions, with_official_test


def test_fractions_are_rounded_and_the_rest_is_for_training():
    assert [len(part) for part in by_fractions(1797, 0.1, 0.15, 0)] == [1347, 180, 270]


def test_official_test_keeps_its_place_and_order():
    train, validation, test = with_official_test(60, 10, 5, 0)
    np.testing.assert_array_equal(test, np.arange(60, 70))
    assert len(validation) == 5
    np.testing.assert_array_equal(np.sort([*train, *validation]), np.arange(60))


def test_split_of_seed_zero_stays_what_it_was():
    assert Digits().test.index[:4].tolist() == [668, 1650, 1005, 1623]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((10, 0.0, 0.2, 0), ["validation", 0]),
        ((10, 0.2, 1.5, 0), ["test", 1.5]),
        ((10, float("nan"), 0.2, 0), ["validation", "nan"]),
        ((10, 0.01, 0.2, 0), ["validation=0.01", "test=0.2", 10, "train=8", "validation=0", "test=2"]),
        ((10, 0.5, 0.5, 0), ["train=0", "validation=5", "test=5"]),
        ((1, 0.1, 0.15, 0), ["train=1", "validation=0", "test=0"]),
        ((10, 0.2, 0.2, -1), ["split_seed", -1]),
    ],
)
def test_impossible_split_is_refused(arguments, words):
    with refused(*words):
        by_fractions(*arguments)


@pytest.mark.parametrize("validation", [0, -1, 60])
def test_official_validation_of_impossible_size_is_refused(validation):
    with refused(f"validation={validation}", "train="):
        with_official_test(60, 10, validation, 0)
