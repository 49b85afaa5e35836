"""What every estimate has: a mean, a standard error, and an interval that these make."""

import inspect
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats
from checks import refused
from programs import GaussianGuide, LinearGaussian

import pyrovae
from pyrovae import evaluation
from pyrovae.guides import DiagonalNormal
from pyrovae.objectives import ELBO, IWAE

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]
WITHOUT = {"ActiveUnits", "AggregatePosterior", "Effort", "GradientSummary", "Interpolation", "LatentMap", "Traversal"}
"""Results that are no estimates with an error: counts, draws, costs, paths, places, and a summary of estimates."""


def pair(shift=0.1):
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=shift, widen=1.3, diagonal=True)


def gaps(x):
    vae = pyrovae.VAE((3,), 2, likelihood=pyrovae.likelihoods.Normal, guide=DiagonalNormal)
    return evaluation.inference_gaps(vae, x, 50, steps=2)


made = {
    "AnnealedLikelihood": lambda x: evaluation.annealed_importance_sampling(pair(), x, 5, 4, steps=1),
    "Bidirectional": lambda x: evaluation.bidirectional(pair(), x, 5, 4, steps=1),
    "BoundCurve": lambda x: evaluation.bound_curve(pair(), x, (1, 5, 10), num_samples=40),
    "Comparison": lambda x: evaluation.compare({"one": pair(), "other": pair(0.5), "third": pair(0.3)}, x, 50),
    "GradientStatistics": lambda x: evaluation.gradient_statistics(pair(), x, IWAE(2), 8),
    "InferenceGaps": gaps,
    "KLDecomposition": lambda x: evaluation.kl_decomposition(pair(), x, 5),
    "LogLikelihood": lambda x: evaluation.log_likelihood(pair(), x, 50),
    "RateDistortion": lambda x: evaluation.rate_distortion({"one": pair(), "other": pair(0.5)}, x, 5),
}


@pytest.fixture
def estimates():
    return lambda name: made[name](LinearGaussian().data(6))


def array(value):
    """All numbers, also of a dictionary of them."""
    values = [*value.values()] if isinstance(value, Mapping) else [value]
    return np.concatenate([np.ravel(np.asarray(each)) for each in values])


def test_every_result_class_is_here():
    classes = {name for name in evaluation.__all__ if inspect.isclass(getattr(evaluation, name))}
    assert classes - WITHOUT - {"ImportanceSamplingWarning"} == {*made}


@pytest.mark.parametrize("name", made)
def test_an_estimate_has_a_mean_a_standard_error_and_an_interval(name, estimates):
    found = estimates(name)
    assert type(found).__name__ == name
    error = array(found.standard_error)
    assert np.isfinite(array(found.mean)).all()
    assert (error >= 0).all()
    assert (error > 0).any()
    ends = low, high = [array(end) for end in found.interval()]
    assert low.shape == high.shape == error.shape
    for mine, same in zip(ends, found.interval(0.95), strict=True):
        np.testing.assert_array_equal(mine, array(same))
    (wide, up), (narrow, down) = (map(array, found.interval(level)) for level in (0.99, 0.8))
    assert (wide <= low).all()
    assert (low <= narrow).all()
    assert (narrow <= down).all()
    assert (down <= high).all()
    assert (high <= up).all()


@pytest.mark.parametrize("name", made)
def test_a_level_is_between_0_and_1(name, estimates):
    found = estimates(name)
    for level in (0.0, 1.0, 95):
        with refused("level", level, 0, 1):
            found.interval(level)


@pytest.mark.parametrize(
    "name", ["BoundCurve", "Comparison", "InferenceGaps", "KLDecomposition", "LogLikelihood", "RateDistortion"]
)
def test_what_people_read_is_numpy(name, estimates):
    found = estimates(name)
    for value in (found.standard_error, *found.interval()):
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float64


def student(mean, error, number, level=0.95):
    reach = scipy.stats.t.ppf((1 + level) / 2, np.asarray(number) - 1) * error
    return mean - reach, mean + reach


def test_a_bound_has_the_error_of_its_groups(estimates):
    curve = estimates("BoundCurve")
    assert curve.mean.shape == (5, 3)
    assert curve.num_groups.tolist() == [[40, 8, 4]] * 5
    expected = student(curve.values, curve.standard_error, curve.num_groups[..., None])
    np.testing.assert_allclose(curve.interval(), expected)


def test_an_interval_of_a_bound_covers_what_it_converges_to():
    """At K = 1 the ELBO of each datum, of which thousands of draws tell nearly all."""
    model, guide = pair()
    x = model.data(200)
    few = evaluation.bound_curve((model, guide), x, (1,), {"ELBO": ELBO}, num_samples=12)
    many = evaluation.log_likelihood((model, guide), x, 20_000, num_particles=(1,), seed=1).bounds[1]
    low, high = few.interval(0.8)
    covered = ((low[0, 0] <= many) & (many <= high[0, 0])).sum()
    assert 140 <= covered <= 180  # 160 of 200 in the mean, sd 5.7


def test_rate_and_distortion_have_the_errors_of_their_tuples(estimates):
    found = estimates("RateDistortion")
    rows = [[getattr(found, term)(name) for term in found.terms] for name in found.names]
    np.testing.assert_allclose(np.stack([found.mean, found.standard_error], -1), rows)
    np.testing.assert_allclose(found.interval(), student(found.mean, found.standard_error, 6))


def test_the_parts_of_the_kl_have_the_errors_of_their_tuples(estimates):
    found = estimates("KLDecomposition")
    rows = [getattr(found, term) for term in found.terms]
    np.testing.assert_allclose(np.stack([found.mean, found.standard_error], -1), rows)
    np.testing.assert_allclose(found.interval(), student(found.mean, found.standard_error, 6 * 4 + 1))
    assert np.isnan(evaluation.kl_decomposition(pair(), LinearGaussian().data(6), 1).standard_error).all()


def test_a_comparison_is_of_paired_differences(estimates):
    found = estimates("Comparison")
    rows = [found.difference(name) for name in found.names]
    np.testing.assert_allclose(np.stack([found.mean, found.standard_error], -1), rows)
    assert found.mean[0] == found.standard_error[0] == 0.0
    np.testing.assert_allclose(found.interval(), student(found.mean, found.standard_error, 6), rtol=1e-6, atol=1e-12)


def test_gaps_are_means_over_data(estimates):
    found = estimates("InferenceGaps")
    parts = [getattr(found, term) for term in found.terms]
    np.testing.assert_allclose(found.mean, [part.mean() for part in parts])
    np.testing.assert_allclose(found.standard_error, [part.std(ddof=1) / 6**0.5 for part in parts])
    np.testing.assert_allclose(found.interval(), student(found.mean, found.standard_error, 6))
