r"""Pareto k-hats where the limit is known: for p = N(0, 1) and q = N(0, s^2) with s < 1, :math:`k = 1 - s^2`."""

import math

import numpy as np
import pytest
import torch

from pyrovae.evaluation.estimates.pareto_k_hat import pareto_smoothed


def pareto_k_hats(log_weights: np.ndarray) -> np.ndarray:
    return pareto_smoothed(torch.from_numpy(log_weights)).k_hat.numpy()


def narrow_proposal(scale: float, draws: int, count: int) -> np.ndarray:
    z = np.random.default_rng(0).normal(size=(draws, count)) * scale
    return -(z**2) / 2 + (z / scale) ** 2 / 2 + math.log(scale)


@pytest.mark.parametrize(("scale", "expected"), [(0.5, 0.69), (0.7, 0.48), (0.95, 0.12)])
def test_gaussian_proposals(scale, expected):
    """The limits 0.75, 0.51 and 0.0975 are approached slowly; these are ArviZ's values at 20,000 draws."""
    k_hats = pareto_k_hats(narrow_proposal(scale, 20_000, 40))
    assert k_hats.mean() == pytest.approx(expected, abs=0.05)
    assert abs(k_hats.mean() - (1 - scale**2)) < 0.1


def test_the_other_sign_would_be_seen():
    assert (pareto_k_hats(-narrow_proposal(0.5, 20_000, 3)) < -1.5).all()


def test_a_constant_factor_changes_nothing():
    log_weights = narrow_proposal(0.6, 1000, 4)
    np.testing.assert_allclose(pareto_k_hats(log_weights - 700), pareto_k_hats(log_weights), atol=1e-8)


@pytest.mark.parametrize(("scale", "draws"), [(0.6, 800), (0.6, 200), (0.9, 5000), (0.2, 1000), (1.5, 1000)])
def test_as_arviz_itself_has_it(scale, draws):
    """The smoothed weights, which ArviZ normalises, too."""
    from arviz_stats.base import array_stats

    log_weights = narrow_proposal(scale, draws, 6)
    found = pareto_smoothed(torch.from_numpy(log_weights))
    smoothed, k_hats = array_stats.psislw(-log_weights, axis=0)
    np.testing.assert_allclose(found.k_hat, k_hats, rtol=1e-9)
    np.testing.assert_allclose(found.log_weights.log_softmax(0).T, smoothed, rtol=1e-9)


def test_data_do_not_know_each_other(monkeypatch):
    log_weights = torch.from_numpy(narrow_proposal(0.6, 300, 7))
    together = pareto_smoothed(log_weights)
    monkeypatch.setattr("pyrovae.evaluation.estimates.pareto_k_hat.HELD", 1)
    for one, other in zip(together, pareto_smoothed(log_weights), strict=True):
        torch.testing.assert_close(one, other)


def test_what_has_no_tail_is_not_smoothed():
    for log_weights in (torch.zeros(500, 2), torch.randn(29, 2), 5000 * torch.randn(500, 2)):
        torch.testing.assert_close(pareto_smoothed(log_weights.double()).log_weights, log_weights.double())


@pytest.mark.parametrize("draws", [1, 2, 29])
def test_too_few_draws_have_no_tail(draws):
    assert np.isnan(pareto_k_hats(narrow_proposal(0.5, draws, 3))).all()


@pytest.mark.parametrize("draws", [30, 31, 100, 225, 226, 231])
def test_enough_draws_have_one(draws):
    assert np.isfinite(pareto_k_hats(narrow_proposal(0.5, draws, 20))).all()


@pytest.mark.parametrize("rounding", [0.0, 1e-13, 1e-6])
def test_equal_weights_have_no_tail(rounding):
    noise = np.random.default_rng(0).normal(size=(500, 3))
    assert np.isnan(pareto_k_hats(-300 + rounding * noise)).all()


@pytest.mark.parametrize("rounding", [0.0, 1e-12])
def test_tied_weights_have_no_tail(rounding):
    """As latents of few values have them; ArviZ before 1.0 would answer 0.02 here."""
    ties = np.random.default_rng(0).choice([-1.0, -2.0, -3.0], size=(500, 3), p=[0.01, 0.04, 0.95])
    ties += rounding * np.random.default_rng(1).normal(size=ties.shape)
    assert np.isnan(pareto_k_hats(ties)).all()


def test_one_weight_above_all_others_is_the_worst_tail():
    """The rest underflow beside it; ArviZ before 1.0 would answer 0.02, the best of tails."""
    wild = np.random.default_rng(0).normal(size=(5000, 3)) * 5000
    assert (pareto_k_hats(wild) == math.inf).all()


def test_weights_of_zero():
    log_weights = narrow_proposal(0.5, 2000, 3)
    log_weights[::2] = -math.inf
    assert np.isfinite(pareto_k_hats(log_weights)).all()
    assert np.isnan(pareto_k_hats(np.full((100, 2), -math.inf))).all()


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0, 180.0, 1000.0])
def test_no_spread_of_weights_is_too_much_for_the_fit(spread):
    """With warnings as errors; without the guards the fit overflows at the largest two."""
    k_hats = pareto_k_hats(spread * np.random.default_rng(0).normal(size=(1000, 20)))
    assert not np.isnan(k_hats).any()
    assert (k_hats.mean() > 0.7) == (spread > 1.0)


@pytest.mark.cuda
def test_on_a_cuda_device():
    log_weights = torch.from_numpy(narrow_proposal(0.6, 5000, 50))
    for here, there in zip(pareto_smoothed(log_weights), pareto_smoothed(log_weights.cuda()), strict=True):
        torch.testing.assert_close(there.cpu(), here)
