"""Statistics of one column of weights against direct formulas."""

import math

import pytest
import torch
from checks import assert_mean

from pyrovae.evaluation.estimates import importance

log_weights = torch.randn(60, 5, dtype=torch.float64) * 2 - 1000
"""Far from zero, as log likelihoods are: the weights themselves underflow."""
weights = (log_weights + 1000).exp()


def test_log_mean_weight():
    torch.testing.assert_close(importance.log_mean_weight(log_weights), weights.mean(0).log() - 1000)


@pytest.mark.parametrize("particles", [1, 7, 60])
def test_bound_averages_disjoint_groups(particles):
    groups = weights[: 60 // particles * particles].reshape(-1, particles, 5)
    expected = groups.mean(1).log().mean(0) - 1000
    torch.testing.assert_close(importance.importance_weighted_bound(log_weights, particles), expected)


def test_effective_sample_size():
    expected = weights.sum(0) ** 2 / (weights**2).sum(0)
    torch.testing.assert_close(importance.effective_sample_size(log_weights), expected)


def test_standard_error_is_both_of_its_formulas():
    by_spread = weights.std(0) / math.sqrt(60) / weights.mean(0)
    by_size = (60 / 59 * (1 / importance.effective_sample_size(log_weights) - 1 / 60)).sqrt()
    torch.testing.assert_close(importance.standard_error(log_weights), by_spread)
    torch.testing.assert_close(importance.standard_error(log_weights), by_size)


def test_a_single_draw_has_no_standard_error():
    assert importance.standard_error(log_weights[:1]).isnan().all()


def test_no_weight_at_all():
    nothing = torch.full((10, 1), -math.inf)
    assert importance.log_mean_weight(nothing) == -math.inf
    assert importance.effective_sample_size(nothing) == 0
    assert importance.standard_error(nothing).isnan()


class TestJackknife:
    def test_it_leaves_each_draw_out(self):
        estimate, error = importance.jackknife(log_weights)
        without = torch.stack([torch.cat([weights[:k], weights[k + 1 :]]).mean(0).log() - 1000 for k in range(60)])
        plain = importance.log_mean_weight(log_weights)
        torch.testing.assert_close(estimate, 60 * plain - 59 * without.mean(0))
        torch.testing.assert_close(error, (59 * without.var(0, correction=0)).sqrt())

    def test_it_takes_most_of_the_bias_away(self):
        """Of log-normal weights with sd 1, 100 draws: about -(e - 1) / 200 = -0.0086, which is seen at 1e-5."""
        draws = torch.randn(100, 200_000, dtype=torch.float64) - 0.5
        estimate, _ = importance.jackknife(draws)
        assert_mean(estimate, 0.0, detects=0.0025)
        with pytest.raises(AssertionError):
            assert_mean(importance.log_mean_weight(draws), 0.0, detects=0.0025)

    def test_where_one_draw_is_all_there_is_none(self):
        for alone in (log_weights[:1], torch.tensor([[0.0], [-1e4], [-1e4]])):
            assert all(value.isnan().all() for value in importance.jackknife(alone))
