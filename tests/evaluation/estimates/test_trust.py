"""Which estimates are trusted: by their k-hats, and without one by the two rules that take its place."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyrovae.evaluation import LogLikelihood


def estimate(log_weights: torch.Tensor, *, discrete: bool = False, mixed: bool = False) -> LogLikelihood:
    found = LogLikelihood.from_log_weights(log_weights)
    defensive = np.ones(len(found.log_p), dtype=bool) if mixed else None
    return replace(found, discrete_latents=discrete, defensive=defensive)


def hits(number: int, draws: int = 500, below: float = 70.0) -> torch.Tensor:
    """Log weights of which so many are 0, and all others far below, shape ``(draws, 1)``."""
    log_weights = torch.full((draws, 1), -below, dtype=torch.float64)
    log_weights[:number] = 0.0
    return log_weights


def test_a_k_hat_up_to_the_threshold_is_trusted():
    found = estimate(torch.randn(5000, 6, dtype=torch.float64))
    found = replace(found, k_hat=np.array([0.2, 0.7, math.nextafter(0.7, 1.0), math.inf, -math.inf, math.nan]))
    assert found.trusted.tolist() == [True, True, False, False, True, False]
    assert found.share_untrusted == 0.5


@pytest.mark.parametrize("below", [70.0, 1000.0])
@pytest.mark.parametrize("discrete", [False, True])
def test_one_weight_above_all_others_is_not_trusted(discrete, below):
    found = estimate(hits(1, below=below), discrete=discrete)
    assert found.effective_sample_size == pytest.approx(1.0)
    assert not found.trusted.any()
    assert found.warning


def test_no_weight_at_all_is_not_trusted():
    for mixed in (False, True):
        assert not estimate(torch.full((100, 3), -math.inf, dtype=torch.float64), mixed=mixed).trusted.any()


@pytest.mark.parametrize("draws", [2, 29, 30, 5000])
@pytest.mark.parametrize("spread", [0.0, 1e-13, 1e-5])
def test_equal_weights_are_trusted_where_all_latents_are_continuous(draws, spread):
    """The spread 1e-5 is that of log weights near -100 in float32."""
    log_weights = -100.0 + spread * torch.randn(draws, 4, dtype=torch.float64)
    assert np.isnan(estimate(log_weights).k_hat).all()
    assert estimate(log_weights).trusted.all()
    assert estimate(log_weights).warning is None
    assert not estimate(log_weights, discrete=True).trusted.any()
    assert estimate(log_weights, discrete=True, mixed=True).trusted.all() == (draws >= 30)


def test_one_draw_alone_is_not_trusted():
    assert not estimate(torch.zeros(1, 3)).trusted.any()


def test_few_draws_that_differ_are_not_trusted():
    found = estimate(torch.randn(29, 4, dtype=torch.float64))
    assert not found.trusted.any()
    assert found.share_untrusted == 1.0
    assert "100.0%" in found.warning


@pytest.mark.parametrize("below", [70.0, 1000.0])
@pytest.mark.parametrize(("number", "draws", "expected"), [(9, 500, False), (10, 500, True), (20, 29, False)])
def test_ties_of_the_mixture_are_trusted_where_ten_count(number, draws, expected, below):
    """Its weights are bounded, so that what counts is how many of them there are; the guide's own may miss what matters."""
    found = estimate(hits(number, draws, below), discrete=True, mixed=True)
    assert found.trusted.all() == expected
    assert not estimate(hits(number, draws, below), discrete=True).trusted.any()


def test_the_mixture_excuses_its_own_data_alone():
    found = replace(estimate(hits(20).repeat(1, 3), discrete=True), defensive=np.array([True, False, True]))
    assert found.trusted.tolist() == [True, False, True]


def test_the_mixture_does_not_excuse_a_k_hat_that_is_too_large():
    found = replace(estimate(torch.randn(500, 2, dtype=torch.float64), mixed=True), k_hat=np.array([0.9, 0.1]))
    assert found.trusted.tolist() == [False, True]


@pytest.mark.parametrize(
    ("above", "missing", "words"),
    [
        (10, 0, ("k-hat exceeds 0.63 for 10.0%",)),
        (0, 10, ("k-hat could not be fitted", "for 10.0%", 'proposal="auto"')),
        (3, 4, ("k-hat exceeds 0.63 for 3.0%", "could not be fitted", "for 4.0%", 'proposal="auto"')),
        (3, 2, None),
    ],
)
def test_the_warning_says_which_k_hats_are_too_large_and_which_there_are_none_of(above, missing, words):
    k_hat = np.full(100, 0.2)
    k_hat[:above], k_hat[above : above + missing] = 0.9, math.nan
    warning = replace(estimate(torch.randn(500, 100, dtype=torch.float64)), k_hat=k_hat).warning
    assert (warning is None) == (words is None)
    assert all(word in warning for word in words or ())


def test_the_least_trusted_come_first():
    """Those without a k-hat, then by k-hat, and last those without one that are trusted for their equal weights."""
    log_weights = torch.randn(100, 6, dtype=torch.float64)
    log_weights[:, 2] = -3.0
    found = replace(estimate(log_weights), k_hat=np.array([0.1, math.inf, math.nan, 0.9, math.nan, -math.inf]))
    assert found.worst().index.tolist() == [4, 1, 3, 0, 5, 2]
    assert found.worst(2)["k_hat"].tolist()[1:] == [math.inf]
    assert found.worst(2)["log_p"].tolist() == found.log_p[[4, 1]].tolist()
