"""Rate and distortion in closed form, and draws of the aggregate posterior."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, refused
from programs import Chain, ChainGuide, GaussianGuide, LatentPlateGuide, LinearGaussian, WithLatentPlate, gaussian_kl

import pyrovae
from pyrovae.evaluation import RateDistortion, aggregate_posterior, rate_distortion

pytestmark = pytest.mark.usefixtures("float64")


def exact(model, guide, x):
    """Rate and distortion of each datum of a linear-Gaussian pair."""
    loc, covariance = guide.moments(x)
    rate = gaussian_kl((loc, covariance), (torch.zeros(1, 2), torch.eye(2)))
    spread = (model.weight @ covariance @ model.weight.T).trace() / (2 * model.noise**2)
    at_mean = dist.Normal(model.mean(loc), model.noise).to_event(1).log_prob(x)
    return rate.detach().numpy(), (spread - at_mean).detach().numpy()


def test_rate_and_distortion_of_gaussians():
    model = LinearGaussian()
    x = model.data(50)
    pairs = {"diagonal": (model, GaussianGuide(model, diagonal=True)), "wide": (model, GaussianGuide(model, widen=1.5))}
    found = rate_distortion(pairs, x, 200, max_rows=1000)
    assert found.names == ["diagonal", "wide"]
    np.testing.assert_allclose(found.rates["diagonal"], exact(model, pairs["diagonal"][1], x)[0])
    assert_mean(torch.from_numpy(found.rates["wide"] - exact(model, pairs["wide"][1], x)[0]), 0.0, detects=0.1)
    for name, (_, guide) in pairs.items():
        assert_mean(torch.from_numpy(found.distortions[name] - exact(model, guide, x)[1]), 0.0, detects=0.3)


def test_with_the_exact_posterior_the_elbo_is_log_p():
    """As the rate is made of the same draws where there is no formula, datum by datum."""
    model = LinearGaussian()
    x = model.data(20)
    found = rate_distortion({"exact": (model, GaussianGuide(model))}, x, 1)
    np.testing.assert_allclose(-found.rates["exact"] - found.distortions["exact"], model.log_p(x).numpy())
    assert found.elbo("exact")[0] == pytest.approx(model.log_p(x).mean().item())


def test_errors_and_table():
    rates, distortions = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    found = RateDistortion({"one": rates}, {"one": distortions}, 5)
    assert found.rate("one") == pytest.approx((2.0, 1 / 3**0.5))
    assert found.distortion("one") == pytest.approx((2.0, 1 / 3**0.5))
    assert found.elbo("one") == pytest.approx((-4.0, 0.0))
    assert "3 data, 5 draws each" in str(found)
    assert str(found).splitlines()[-1].split() == [
        "one",
        "2.000",
        "±",
        "0.577",
        "2.000",
        "±",
        "0.577",
        "-4.000",
        "±",
        "0.000",
    ]


def test_a_vae_is_a_pair():
    vae = pyrovae.VAE((3,), 2)
    x = torch.rand(5, 3).round()
    found = rate_distortion({"vae": vae, "pair": (vae.model, vae.guide)}, x, seed=3)
    np.testing.assert_array_equal(found.distortions["vae"], found.distortions["pair"])


def test_leaves_the_callers_noise():
    vae = pyrovae.VAE((3,), 2)
    before = torch.get_rng_state()
    found = [rate_distortion({"a": vae}, torch.zeros(5, 3), seed=seed) for seed in (0, 0, 1)]
    aggregate_posterior(vae, torch.zeros(5, 3))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(found[0].distortions["a"], found[1].distortions["a"])
    assert not np.array_equal(found[0].distortions["a"], found[2].distortions["a"])


def test_pairs_are_pairs():
    with refused("{'one': vae, 'other': (model, guide)}"):
        rate_distortion({}, torch.zeros(3))
    with refused("'one'", "int", "(model, guide)"):
        rate_distortion({"one": 3}, torch.zeros(3))


@pytest.mark.parametrize("name", ["num_samples", "max_rows"])
def test_numbers_are_at_least_one(name):
    vae = pyrovae.VAE((3,), 2)
    with refused(name, 0, 1):
        rate_distortion({"a": vae}, torch.zeros(5, 3), **{name: 0})
    with refused(name, 0, 1):
        aggregate_posterior(vae, torch.zeros(5, 3), **{name: 0})


def test_a_scaled_density_is_none():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.poutine.scale(scale=0.5):
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with refused("'x'", "poutine.scale"):
        rate_distortion({"a": (model, guide)}, torch.zeros(5))


def test_draws_of_the_aggregate_posterior():
    """With the exact posterior of data from the model both are standard normal."""
    model = LinearGaussian()
    found = aggregate_posterior((model, GaussianGuide(model)), model.data(20_000), seed=1, max_rows=3000)
    assert found.prior.shape == found.posterior.shape == (20_000, 2)
    for draws in found:
        for column in draws.T:
            assert_mean(column, 0.0, detects=0.06)
            assert_mean(column.square(), 1.0, detects=0.1)


@pytest.mark.parametrize(("model", "guide"), [(WithLatentPlate, LatentPlateGuide), (Chain, ChainGuide)])
def test_draws_of_several_sites_and_of_inner_plates(model, guide):
    program = model()
    found = aggregate_posterior((program, guide(program)), program.data(2000), 3)
    assert found.prior.shape == found.posterior.shape == (6000, 2)
    expected = program.covariance[0, 1] if model is Chain else 0.0
    assert_mean(found.prior.prod(-1), expected, detects=0.15)
