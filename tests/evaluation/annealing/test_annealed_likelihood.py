"""Errors and warnings of estimates by annealed importance sampling."""

from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch

from pyrovae.evaluation import AnnealedLikelihood

pytestmark = pytest.mark.usefixtures("float64")


def test_chains_of_which_few_count_are_warned_of():
    """Of sixteen equal weights all count, of sixteen of which seven are not zero, seven, and of eight, eight."""
    found = np.zeros((16, 100))
    found[7:, :5] = -np.inf
    found[8:, 5:50] = -np.inf
    annealed = partial(AnnealedLikelihood, acceptance=np.ones(1), temperatures=2, start="prior", schedule="sigmoid", steps=1)
    assert annealed(found).share_unmet == 0.05
    assert annealed(found).warning is None
    assert "Warning" not in str(annealed(found))
    found[7:, 5] = -np.inf
    assert annealed(found).share_unmet == 0.06
    assert "fewer than half of the chains count for 6.0% of the data" in str(annealed(found))


@pytest.mark.parametrize(
    ("log_weights", "unmet", "words"),
    [
        ([0.0], True, "a single chain counts for 100.0%"),
        ([0.0, 0.0], False, None),
        ([0.0, -1.2], False, None),
        ([0.0, -1.5], True, "a single chain counts for 100.0%"),
        ([0.0, -np.inf], True, "a single chain counts for 100.0%"),
        ([0.0, 0.0, -np.inf], False, None),
        ([0.0, -np.inf, -np.inf], True, "fewer than half of the chains count for 100.0%"),
        ([-np.inf] * 4, True, "fewer than half of the chains count for 100.0%"),
        ([0.0, np.nan, 0.0, 0.0], True, "fewer than half of the chains count for 100.0%"),
    ],
)
def test_chains_that_cannot_be_compared_do_not_pass_in_silence(log_weights, unmet, words):
    """A chain alone, two of which one has no weight, no weight at all, and what is not a number."""
    column = np.array(log_weights)[:, None]
    found = AnnealedLikelihood(column, np.ones(1), temperatures=2, start="prior", schedule="sigmoid", steps=1)
    assert found.share_unmet == unmet
    assert found.warning is None if words is None else words in found.warning


def test_the_interval_is_that_of_the_mean_weight():
    """Of the mean weight over p(x), which has no upper end where its standard error is as large as itself."""
    log_weights = torch.randn(5, 4).numpy() * [0.1, 0.5, 1.0, 5.0] - 30.0
    found = AnnealedLikelihood(log_weights, np.zeros(0), 1, "prior", "sigmoid", 1)
    weights = np.exp(log_weights)
    reach = scipy.stats.t(4).ppf(0.95) * scipy.stats.sem(weights) / weights.mean(0)
    low, high = found.interval(0.9)
    np.testing.assert_allclose(np.exp(low), weights.mean(0) / (1.0 + reach))
    np.testing.assert_allclose(np.exp(-high), np.maximum(1.0 - reach, 0.0) / weights.mean(0))
    assert np.isinf(high).any()
    assert np.isfinite(high).any()
