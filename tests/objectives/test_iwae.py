import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, measure, refused
from programs import GaussianGuide, LinearGaussian, Mixture, MixtureGuide, gaussian_kl, weight_variance
from pyro import poutine
from pyro.infer import RenyiELBO

from pyrovae.objectives import ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")


def repeated(objective, model, guide, x, repeats):
    with torch.no_grad():
        return objective(model, guide).measure(x[:1].expand(repeats, -1)).bound


def test_with_one_particle_it_is_the_elbo():
    model = LinearGaussian()
    guide = GaussianGuide(model, shift=0.3)
    x = model.data(5)
    torch.testing.assert_close(measure(IWAE(1), model, guide, x), measure(ELBO(1), model, guide, x))


def test_with_two_particles_it_is_the_quadrature():
    r""":math:`E[\log \frac12 (w_1 + w_2)]` by Gauss-Hermite quadrature in two dimensions."""
    model = LinearGaussian(data_dim=2, latent_dim=1)
    guide = GaussianGuide(model, shift=0.3, widen=1.4)
    x = model.data(1)
    nodes, node_weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(60))
    with torch.no_grad():
        z = (guide.proposal(x).loc + guide.factor * nodes[:, None])[:, None]
        log_w = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) - guide.proposal(x).log_prob(z)
        log_w = (log_w + dist.Normal(model.mean(z), model.noise).log_prob(x).sum(-1))[:, 0]
    node_weights = node_weights / node_weights.sum()
    expected = (node_weights * node_weights[:, None] * torch.logaddexp(log_w, log_w[:, None])).sum() - math.log(2)
    gap = gaussian_kl(guide.moments(x), model.posterior(x)).item()
    assert model.log_p(x) - gap < expected - 0.02 < expected < model.log_p(x) - 0.02
    assert (node_weights * log_w).sum().item() == pytest.approx(model.log_p(x).item() - gap, abs=1e-8)
    assert_mean(repeated(IWAE(2), model, guide, x, 200_000), expected, detects=0.02)


def test_its_gap_falls_as_the_variance_of_the_weights_over_twice_the_particles():
    r""":math:`K (\log p - L_K) \to Var(w / p) / 2`.

    The mean of w / p - 1, which is 0, is added to each draw of the bound: the linear part of its noise goes.
    """
    model = LinearGaussian()
    guide = GaussianGuide(model, shift=0.1, widen=1.1)
    x = torch.tensor([[0.5, -1.0, 1.0]])
    variance = weight_variance(guide.moments(x), model.posterior(x))
    assert variance > 0.1
    particles = 300
    bound = repeated(IWAE(particles), model, guide, x, 5000)
    log_mean = bound - model.log_p(x)
    gap = particles * (log_mean.exp() - 1 - log_mean)
    assert_mean(gap, variance / 2, detects=0.15 * float(variance / 2))


def test_of_a_discrete_latent_it_is_the_sum_over_samples():
    mixture = Mixture()
    guide = MixtureGuide(mixture, sharpness=0.6)
    x = torch.tensor([0.3])
    log_joint = mixture.joint(x)[0]
    q = (0.6 * log_joint).softmax(0).detach()
    log_w = log_joint - q.log()
    expected = (q * q[:, None] * (torch.logaddexp(log_w, log_w[:, None]) - math.log(2))).sum()
    with torch.no_grad():
        bound = IWAE(2)(mixture, guide).measure(x.expand(50_000)).bound
    assert_mean(bound, expected, detects=0.02)


@pytest.mark.parametrize("particles", [2, 7])
def test_value_and_gradient_are_those_of_stock_pyro(particles):
    model = LinearGaussian()
    guide = GaussianGuide(model, shift=0.3, widen=1.3)
    x = model.data(6)
    value = measure(IWAE(particles), model, guide, x).loss
    stock = RenyiELBO(0.0, particles, vectorize_particles=True, max_plate_nesting=1)
    pyro.set_rng_seed(1)
    assert value.item() == pytest.approx(stock.loss(model, guide, x), abs=1e-8)
    parameters = [*model.parameters(), *guide.parameters()]
    gradients = torch.autograd.grad(value, parameters)
    pyro.set_rng_seed(1)
    stock.loss_and_grads(model, guide, x)
    torch.testing.assert_close(gradients, tuple(parameter.grad for parameter in parameters))


@pytest.mark.parametrize("scaled", ["model", "guide"])
def test_a_scaled_site_is_refused(scaled):
    model = LinearGaussian()
    pair = {"model": model, "guide": GaussianGuide(model)}
    pair[scaled] = poutine.scale(pair[scaled], scale=0.5)
    with refused("'z'", "poutine.scale", "IWAE", "ELBO"):
        IWAE()(pair["model"], pair["guide"])(model.data(3))
