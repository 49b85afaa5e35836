"""Statistics of one column of weights against direct formulas."""

import math

import pytest
import torch

from pyrovae.evaluation import importance

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
