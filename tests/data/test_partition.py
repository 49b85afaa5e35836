import numpy as np
import pytest

from pyrovae.data import Digits
from pyrovae.data.partition import by_fractions, with_official_test
from pyrovae.errors import InputError


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
    ("arguments", "message"),
    [
        ((10, 0.0, 0.2, 0), "validation is 0; expected a fraction between 0 and 1"),
        ((10, 0.2, 1.5, 0), "test is 1.5; expected a fraction"),
        ((10, float("nan"), 0.2, 0), "validation is nan; expected a fraction"),
        ((10, 0.01, 0.2, 0), r"validation=0.01 and test=0.2 leave 8 of 10 data for training, 0 for validation and 2 for"),
        ((10, 0.5, 0.5, 0), "leave 0 of 10 data for training, 5 for validation and 5 for testing; expected at least one"),
        ((1, 0.1, 0.15, 0), "leave 1 of 1 data for training.*bring more data"),
        ((10, 0.2, 0.2, -1), "split_seed is -1; expected zero or more"),
    ],
)
def test_impossible_split_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        by_fractions(*arguments)


@pytest.mark.parametrize("validation", [0, -1, 60])
def test_official_validation_of_impossible_size_is_refused(validation):
    with pytest.raises(InputError, match=f"validation={validation} leave"):
        with_official_test(60, 10, validation, 0)
