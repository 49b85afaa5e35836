"""Bounds from both directions."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from annealed import one_start, pair
from checks import assert_mean
from torch import nn

from pyrovae.evaluation import Bidirectional, bidirectional

pytestmark = pytest.mark.usefixtures("float64")


def test_the_interval_between_both_bounds():
    """Below the mean over the chains forward, and above that over those back."""
    forward, reverse = torch.randn(2, 5, 4).numpy() * 0.1 - 30.0
    low, high = Bidirectional(forward, reverse, 1, np.zeros(4)).interval(0.9)
    np.testing.assert_allclose(low, scipy.stats.t.interval(0.9, 4, forward.mean(0), scipy.stats.sem(forward))[0])
    np.testing.assert_allclose(high, scipy.stats.t.interval(0.9, 4, reverse.mean(0), scipy.stats.sem(reverse))[1])


def test_chains_that_have_not_met_bracket_too():
    """Log weights of N(-s^2 / 2, s^2) with mean 1, s up to 6, of which the heaviest carries all: 40,000 data."""
    scale = torch.linspace(0.1, 6.0, 40_000)
    below, above = scale * torch.randn(2, 16, 40_000)
    forward, reverse = (below - scale**2 / 2).numpy(), (above + scale**2 / 2).numpy()
    found = Bidirectional(forward, reverse, 1, np.zeros(40_000))
    low, high = found.interval(1.0 - 1e-6)
    assert ((low < 0.0) & (high > 0.0)).all()
    assert (found.lower > 0.0).any()
    assert (found.upper < 0.0).any()


def test_a_weight_of_zero_and_a_single_chain():
    forward, reverse = torch.randn(2, 3, 1).numpy()
    forward[0] = -math.inf
    low, high = Bidirectional(forward, reverse, 1, np.zeros(1)).interval()
    assert np.isnan(low).all()
    assert np.isfinite(high).all()
    assert np.isnan(Bidirectional(forward[:1], reverse[:1], 1, np.zeros(1)).interval()).all()


def test_the_bounds_of_both_directions():
    forward, reverse = torch.randn(2, 5, 4).numpy() - 30.0
    found = Bidirectional(forward, reverse, 1, np.zeros(4))
    np.testing.assert_allclose(found.lower, np.log(np.exp(forward).mean(0)))
    np.testing.assert_allclose(found.upper, -np.log(np.exp(-reverse).mean(0)))


def test_the_estimate_is_midway_between_the_bounds():
    """Its error is that of two independent estimates, each by the delta method."""
    forward, reverse = torch.randn(2, 5, 4).numpy() - 30.0
    found = Bidirectional(forward, reverse, 1, np.zeros(4))
    np.testing.assert_allclose(found.log_p, (found.lower + found.upper) / 2.0)
    assert found.mean == pytest.approx(found.log_p.mean())
    errors = [scipy.stats.sem(weights) / weights.mean(0) for weights in (np.exp(forward), np.exp(-reverse))]
    np.testing.assert_allclose(found.standard_error, np.hypot(*errors) / 2.0)


class TestBackwards:
    @one_start
    def test_the_bounds_hold_and_close(self, start):
        """In the mean, at z-tests of 1e-5, of data that the model has drawn."""
        model, guide = pair()
        x = model.data(300)
        gaps = []
        for temperatures in (3, 12, 48):
            found = bidirectional((model, guide), x, 4, temperatures, start=start, schedule="adaptive", steps=3)
            lower, upper = found.lower, found.upper
            gap = upper - lower
            low, high = found.interval(1.0 - 1e-6)
            exact = model.log_p(torch.from_numpy(found.data)).numpy()
            assert ((low <= exact) & (exact <= high)).all()
            assert gap.mean() > -4.42 * gap.std() / 300**0.5
            gaps.append(gap.mean())
        assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]

    def test_each_weight_is_right_in_the_mean(self):
        """:math:`E[w] = p(x)` and :math:`E[1 / w] = 1 / p(x)`."""
        model, guide = pair()
        seen = {}
        found = bidirectional((Recorded(model, seen), guide), model.data(1000), 4, 30, start="guide", steps=4)
        log_p = model.log_p(seen["x"]).numpy()
        assert_mean(torch.from_numpy(np.exp(found.forward - log_p)), 1.0, detects=0.2)
        assert_mean(torch.from_numpy(np.exp(log_p - found.reverse)), 1.0, detects=0.2)
        assert (found.lower.mean() - log_p.mean()) < 0.0 < (found.upper.mean() - log_p.mean())

    def test_the_table(self):
        model, guide = pair()
        said = str(bidirectional((model, guide), model.data(4), 3, 10, steps=1))
        assert "log p(x) of 4 data drawn from the model by 3 annealed chains each way, 10 temperatures, in nats" in said


class Recorded(nn.Module):
    """A model that tells what data it was last called with."""

    def __init__(self, model, seen):
        super().__init__()
        self.model, self.seen = model, seen

    def forward(self, x):
        self.seen["x"] = x
        return self.model(x)
