"""Several models on the same data: what is the same for all does not hide what is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from checks import refused
from programs import GaussianGuide, LinearGaussian

import pyrovae
from pyrovae.evaluation import LogLikelihood, compare
from pyrovae.evaluation.estimates.effort import Effort

pytestmark = pytest.mark.usefixtures("float64")


def pair(noise=0.8, shift=0.0):
    """A model and its exact posterior."""
    model = LinearGaussian()
    model.noise = torch.tensor(noise)
    return model, GaussianGuide(model, shift=shift)


def estimate(log_p):
    """Of data whose log p(x) is given."""
    columns = np.asarray(log_p, dtype=float)
    nothing = np.zeros_like(columns)
    return LogLikelihood(columns, nothing, nothing + 1.0, nothing, columns, columns, nothing, 100, {})


def test_identical_models_differ_by_nothing_beyond_their_error():
    """By different draws; a z-test at 1e-5."""
    model, guide = pair(shift=0.2)
    x = model.data(2000)
    one, other = (pyrovae.log_likelihood((model, guide), x, 500, seed=seed) for seed in (1, 2))
    found = compare({"one": one, "other": other})
    difference, error = found.difference(found.names[1])
    assert 0.0 < difference < 4.42 * error
    assert error < 0.1 * one.data_error


def test_a_planted_difference_of_a_twentieth_of_a_nat_is_found():
    """On 10,000 data, where it is less than 3 errors of the difference of two means."""
    true, _ = pair()
    x = true.data(10_000)
    models = {"true": pair(), "other": pair(noise=0.99)}
    found = compare(models, x, 50)
    assert found.names == ["true", "other"]
    difference, error = found.difference("other")
    exact = (models["true"][0].log_p(x) - models["other"][0].log_p(x)).mean().item()
    assert exact == pytest.approx(0.05, abs=0.01)
    assert difference == pytest.approx(exact, abs=1e-6)
    assert difference > 8 * error
    assert found.estimates["true"].data_error > 0.012


def test_the_difference_is_paired():
    found = compare({"b": estimate([1.0, 2.0, 6.0]), "a": estimate([2.0, 2.5, 9.0])})
    assert found.names == ["a", "b"]
    differences = np.array([1.0, 0.5, 3.0])
    assert found.difference("b") == pytest.approx((differences.mean(), differences.std(ddof=1) / 3**0.5))
    assert found.difference("a", "b") == pytest.approx((-differences.mean(), differences.std(ddof=1) / 3**0.5))


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
def test_a_vae_a_pair_and_an_estimate_are_models():
    vae = pyrovae.VAE((3,), 2)
    x = vae.model(size=20)
    known = pyrovae.log_likelihood(vae, x, 40)
    found = compare({"vae": vae, "pair": (vae.model, vae.guide), "estimate": known}, x, 40)
    for name in found.names:
        np.testing.assert_array_equal(found.estimates[name].log_p, known.log_p)


def test_estimates_to_a_tolerance_are_compared_like_others():
    true, exact = pair()
    x = true.data(40)
    models = {"true": (true, GaussianGuide(true, shift=0.1, widen=1.2)), "other": pair(noise=1.1)}
    found = compare(models, x, tolerance=0.05)
    assert [estimate.effort.share_met for estimate in found.estimates.values()] == [1.0, 1.0]
    assert abs(found.estimates["true"].log_p - true.log_p(x).numpy()).max() < 0.1
    difference, error = found.difference("other")
    gap = (true.log_p(x) - models["other"][0].log_p(x)).numpy()
    assert difference == pytest.approx(gap.mean(), abs=0.02)
    assert error == pytest.approx(gap.std(ddof=1) / 40**0.5, rel=0.1)
    low, high = found.interval()
    assert low[1] < difference < high[1]
    assert [*found.to_frame()["share_untrusted"]] == [0.0, 0.0]
    with_draws = compare({"true": found.estimates["true"], "drawn": pyrovae.log_likelihood((true, exact), x, 100)})
    assert with_draws.difference(with_draws.names[1])[0] < 0.02


def test_shares_and_doubts_are_those_of_the_tolerance():
    nothing = np.zeros(30, dtype=bool)
    cost = np.full(30, 1000)
    failed = Effort(0.1, 0.95, np.full(30, "guide"), cost, cost, nothing, nothing)
    found = compare({"met": estimate(np.ones(30)), "failed": replace(estimate(np.zeros(30)), effort=failed)})
    assert found.to_frame().loc["failed", "share_untrusted"] == 1.0
    assert "failed may be better than it seems" in str(found)


def test_a_proposal_and_a_tolerance_are_refused_as_log_likelihood_does():
    with refused("proposal", "'auto'", "tolerance", 0.1):
        compare({"one": pair(), "other": pair(1.1)}, torch.randn(3, 3), tolerance=0.1, proposal="auto")


def test_the_table_and_the_frame():
    found = compare({"second": estimate([1.0, 2.0, 6.0]), "first": estimate([2.0, 2.5, 9.0])})
    frame = found.to_frame()
    assert [*frame.index] == ["first", "second"]
    assert [*frame.columns] == ["rank", "log_p", "se", "diff", "dse", "mc_error", "share_untrusted"]
    assert frame.loc["second", "diff"] == pytest.approx(1.5)
    said = str(found)
    assert "log p(x) of the same 3 data, in nats; differences are paired" in said
    assert "1.500 ± 0.764" in said


def test_doubtful_estimates_are_named():
    doubtful = estimate(np.zeros(30))
    doubtful.k_hat[:] = 0.9
    assert "doubtful may be better than it seems" in str(compare({"sound": estimate(np.ones(30)), "doubtful": doubtful}))


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ({"one": estimate([0.0])}, [1, "{'one': vae, 'other': other}"]),
        (
            {"one": estimate([0.0]), "other": 3},
            ["'other'", "int", "log_likelihood", "(model, guide)"],
        ),
        ({"one": estimate([0.0]), "other": pair()}, ["'other'", "compare(models, data)"]),
        ({"one": estimate([0.0]), "other": estimate([0.0, 1.0])}, ["'one'", 1, "'other'", 2]),
    ],
)
def test_what_cannot_be_compared_is_refused(models, words):
    with refused(*words):
        compare(models)


def test_an_unknown_name_is_refused():
    with refused("'third'", "'one'", "'other'"):
        compare({"one": estimate([0.0, 1.0]), "other": estimate([0.0, 0.5])}).difference("third")
