"""Discrete latents that a guide never draws, where log p(x) is known by summing over all of them."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, warned
from programs import GaussianGuide, LinearGaussian

from pyrovae.evaluation import ImportanceSamplingWarning, LogLikelihood, bound_curve, log_likelihood

pytestmark = pytest.mark.usefixtures("float64")
PRIOR = torch.tensor([0.5, 0.4, 0.1])


class Clusters:
    r"""A model :math:`z \sim \mathrm{Categorical}, x \sim N(d z, 1)`, and a guide with this mass off one value of z."""

    def __init__(self, mass: float, distance: float = 12.0, value: int = 0) -> None:
        self.distance = distance
        self.shares = torch.full((3,), mass).log().index_fill(0, torch.tensor(value), math.log1p(-2 * mass))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(PRIOR))
            pyro.sample("x", dist.Normal(self.distance * z, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=self.shares))

    def log_p(self, x):
        return (PRIOR.log() + dist.Normal(self.distance * torch.arange(3.0), 1.0).log_prob(x[:, None])).logsumexp(-1)


class Switch:
    r"""A model :math:`z \sim \mathrm{Bernoulli}(0.4), x \sim N(12 z, 1)`; its guide is exact, or leaves out z = 1."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def model(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(12.0 * pyro.sample("z", dist.Bernoulli(0.4)), 1.0), obs=x)

    def guide(self, x):
        logits = math.log(0.4 / 0.6) + 12.0 * x - 72.0 if self.exact else torch.full_like(x, math.log(1e-30))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(logits=logits))

    def log_p(self, x):
        densities = dist.Normal(torch.tensor([0.0, 12.0]), 1.0).log_prob(x[:, None])
        return (torch.tensor([0.6, 0.4]).log() + densities).logsumexp(-1)


@pytest.mark.parametrize("pair", [Clusters(1e-30), Clusters(1e-6), Clusters(1e-30, 45.0), Switch(False)])
def test_what_no_draw_hits_is_warned_of(pair):
    """The latent behind the datum is of no draw: log p(x) is 70 nats too low or more, and all weights are equal."""
    x = torch.tensor([12.0 if isinstance(pair, Switch) else pair.distance])
    with warned("k-hat", "fitted", "100.0%", 'proposal="auto"', category=ImportanceSamplingWarning):
        found = log_likelihood((pair.model, pair.guide), x, 500)
    assert found.log_p < pair.log_p(x).numpy() - 60
    assert np.isnan(found.k_hat).all()
    assert found.effective_sample_size == pytest.approx(500)
    assert found.discrete_latents
    assert not found.trusted.any()
    assert found.share_untrusted == 1.0


def test_a_bound_curve_warns_as_well():
    pair = Clusters(1e-30)
    with warned("k-hat", "fitted", "100.0%", category=ImportanceSamplingWarning):
        curve = bound_curve((pair.model, pair.guide), torch.tensor([12.0]), (1, 50), num_samples=200)
    assert not curve.log_likelihood.trusted.any()
    assert "Warning: Pareto k-hat could not be fitted" in str(curve)


@pytest.mark.parametrize("pair", [Clusters(1e-30), Clusters(1e-6), Clusters(1e-30, 45.0), Switch(False)])
def test_auto_mends_them(pair):
    """The mean weight over p(x) is 1: a test at 1e-5 that would see an error of 6% with power 0.99, at seed 0."""
    distance = 12.0 if isinstance(pair, Switch) else pair.distance
    x = torch.full((1000,), distance)
    found = log_likelihood((pair.model, pair.guide), x, 500, proposal="auto", seed=0)
    assert found.defensive.all()
    assert found.trusted.mean() > 0.9
    assert_mean(torch.from_numpy(found.log_p - pair.log_p(x).numpy()).exp(), 1.0, detects=0.06)


def test_the_exact_posterior_cannot_be_told_from_one_wrong_value_and_auto_settles_it():
    pair = Switch(True)
    x = torch.tensor([5.9, 6.0, 6.1])
    with warned("k-hat", "fitted", category=ImportanceSamplingWarning):
        alone = log_likelihood((pair.model, pair.guide), x, 500)
    mixed = log_likelihood((pair.model, pair.guide), x, 500, proposal="auto")
    np.testing.assert_allclose(alone.log_p, pair.log_p(x).numpy())
    assert not alone.trusted.any()
    assert mixed.trusted.all()
    assert np.abs((mixed.log_p - pair.log_p(x).numpy()) / mixed.standard_error).max() < 4.9


def test_the_exact_posterior_of_continuous_latents_is_trusted():
    model = LinearGaussian()
    found = log_likelihood((model, GaussianGuide(model)), model.data(5), 500, proposal="auto")
    assert not found.discrete_latents
    assert np.isnan(found.k_hat).all()
    assert found.trusted.all()
    assert found.defensive is None


@pytest.mark.parametrize("num_samples", [2, 500])
def test_and_so_it_is_in_single_precision(num_samples):
    """Log weights near -100 that differ by rounding."""
    torch.set_default_dtype(torch.float32)
    model = LinearGaussian(data_dim=50)
    found = log_likelihood((model, GaussianGuide(model)), 1.5 * model.data(5), num_samples)
    assert (found.log_p < -50).all()
    assert (found.standard_error > 0).any()
    assert found.trusted.all()


def test_whether_there_are_discrete_latents_is_kept(tmp_path):
    pair = Switch(False)
    found = log_likelihood((pair.model, pair.guide), torch.full((3,), 12.0), 500, proposal="auto", max_rows=500)
    assert found.discrete_latents
    assert LogLikelihood.concatenate([found, found]).discrete_latents
    found.to_netcdf(tmp_path / "found.nc")
    read = LogLikelihood.from_netcdf(tmp_path / "found.nc")
    assert read.discrete_latents is True
    np.testing.assert_array_equal(read.trusted, found.trusted)
