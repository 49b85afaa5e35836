"""The evaluations that an error takes, read off the sizes that were tried."""

import numpy as np
import pytest

from benchmarks.evaluations import ERROR, Repeats, to_error

exact = np.zeros(3)


def repeats(evaluations: float, error: float) -> Repeats:
    """Estimates whose root mean square distance from zero is the error."""
    return Repeats(np.array([[error] * 3, [-error] * 3]), evaluations)


def test_error_is_that_of_repeats_and_bias_their_mean():
    found = Repeats(np.array([[0.3, 0.3, 0.3], [0.1, 0.1, 0.1]]), 1.0)
    assert found.bias(exact) == pytest.approx(0.2)
    assert found.deviation() == pytest.approx(0.02**0.5)
    assert found.error(exact) == pytest.approx(0.05**0.5)


def test_between_two_sizes_is_interpolated_in_logarithms():
    assert to_error([repeats(100, 10 * ERROR), repeats(10_000, 0.1 * ERROR)], exact)[0] == "1,000"


def test_beyond_the_largest_size_is_said_to_be_more_and_extrapolated():
    assert to_error([repeats(100, 4 * ERROR), repeats(400, 2 * ERROR)], exact) == ["more than 400", "0.20", "1,600"]


def test_an_error_that_does_not_fall_is_not_extrapolated():
    assert to_error([repeats(100, 4 * ERROR), repeats(400, 4 * ERROR)], exact)[-1] == "more than 100 times as many"


def test_before_the_smallest_size_is_said_to_be_at_most():
    assert to_error([repeats(100, 0.5 * ERROR), repeats(400, 0.1 * ERROR)], exact)[0] == "at most 100"
