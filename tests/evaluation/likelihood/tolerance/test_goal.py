"""What is asked of an estimate."""

import numpy as np
import pytest
from checks import refused

from pyrovae.evaluation.likelihood.tolerance.goal import MARGIN, Goal


def test_an_interval_is_within_the_tolerance_at_the_error_that_the_draws_are_for():
    goal, number = Goal(0.1, 0.95, 1000), 10**6
    error = 0.2 / np.sqrt(MARGIN)
    needed = goal.draws(np.array([error]), np.array([number]))
    at_it = np.array([error * np.sqrt(number * MARGIN / needed[0])])
    assert goal.reached(np.zeros(1), 0.999 * at_it, number).all()
    assert not goal.reached(np.zeros(1), 1.001 * at_it, number).any()


def test_nothing_known_needs_more_draws_than_there_are():
    goal = Goal(0.1, 0.95, 1000)
    assert np.isinf(goal.draws(np.array([np.nan]), np.array([100]))).all()
    assert not goal.reached(np.array([-np.inf, np.nan, 0.0]), np.array([0.01, 0.01, np.nan]), 100).any()


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ((0.0, 0.95, 10), "tolerance"),
        ((np.nan, 0.95, 10), "tolerance"),
        ((0.1, 1.0, 10), "level"),
        ((0.1, 0.9, 0), "budget"),
    ],
)
def test_what_cannot_be_reached_is_refused(given, word):
    with refused(word):
        Goal(*given)
