"""The distributions on the sphere, against scipy's and against what is known of them."""

from functools import partial
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from checks import assert_mean, refused, slow_but
from pyro.distributions import constraints
from torch.distributions import kl_divergence

from pyrovae.distributions.sphere import UniformSphere, VonMisesFisher, _Angle, direction
from pyrovae.engine.validation import find_plates
from pyrovae.guides import DiagonalNormal
from pyrovae.guides import VonMisesFisher as Guide
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO
from pyrovae.priors import Flow, StandardNormal, Vamp
from pyrovae.priors import UniformSphere as UniformPrior
from pyrovae.priors import VonMisesFisher as Prior
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
LENGTHS, CONCENTRATIONS = [2, 3, 10, 100], [1e-3, 1.0, 30.0, 1e4]
lengths = pytest.mark.parametrize("length", LENGTHS)
concentrations = pytest.mark.parametrize("concentration", CONCENTRATIONS)


def made(length, concentration):
    return VonMisesFisher(direction(torch.randn(length)), torch.tensor(concentration))


def mean_cosine(length, concentration):
    """The quotient of two Bessel functions."""
    above, below = (scipy.special.ive(order, concentration) for order in (length / 2, length / 2 - 1))
    return above / below


@lengths
@concentrations
class TestVonMisesFisher:
    def test_its_density_and_entropy_are_those_of_scipy(self, length, concentration):
        distribution = made(length, concentration)
        other = scipy.stats.vonmises_fisher(distribution.loc.numpy(), concentration)
        z = torch.cat([distribution.sample((20,)), UniformSphere(distribution.loc).sample((20,)), -distribution.loc[None]])
        np.testing.assert_allclose(distribution.log_prob(z).numpy(), other.logpdf(z.numpy()), rtol=1e-9)
        np.testing.assert_allclose(distribution.entropy().item(), other.entropy(), rtol=1e-8, atol=1e-8)

    def test_its_draws_are_those_of_scipy(self, length, concentration):
        """Their angle to the mean direction, and that of what is left to another; two-sample tests at 1e-5."""
        distribution = made(length, concentration)
        z = distribution.sample((4000,)).numpy()
        loc = distribution.loc.numpy()
        other = scipy.stats.vonmises_fisher(loc, concentration).rvs(4000, random_state=1)
        across = np.roll(loc, 1) - loc * (np.roll(loc, 1) @ loc)
        for axis in (loc, across):
            assert scipy.stats.ks_2samp(z @ axis, other @ axis).pvalue > 1e-5

    def test_its_draws_lie_on_the_sphere(self, length, concentration):
        for dtype in (torch.float32, torch.float64):
            distribution = VonMisesFisher(
                direction(torch.randn(7, length, dtype=dtype)), torch.full((7,), concentration).to(dtype)
            )
            z = distribution.sample((500,))
            assert z.dtype == dtype
            assert constraints.sphere.check(z).all()

    def test_a_draw_inverts_the_distribution_function(self, length, concentration):
        angle = _Angle(torch.tensor(concentration), length)
        torch.manual_seed(1)
        theta = angle.draw((2000,))
        torch.manual_seed(1)
        u = torch.rand(2000)
        index = (theta / angle.panel).long().clamp(max=len(angle.cumulative) - 2)
        function, slope = angle.function(theta, angle.panel * index, index)
        torch.testing.assert_close(function, u, rtol=0.0, atol=1e-7)
        nearby, _ = angle.function(theta + 1e-6 * angle.panel, angle.panel * index, index)
        torch.testing.assert_close((nearby - function) / (1e-6 * angle.panel), slope, rtol=1e-3, atol=1e-3)

    def test_its_mean(self, length, concentration):
        distribution = made(length, concentration)
        expected = mean_cosine(length, concentration) * distribution.loc
        torch.testing.assert_close(distribution.expand((3,)).mean, expected.expand(3, length))


def alternate(length, concentration):
    """Whether the pair is one of half of the grid, with two of each length and two of each concentration."""
    return (LENGTHS.index(length) + CONCENTRATIONS.index(concentration)) % 2 == 0


@pytest.mark.parametrize(("length", "concentration"), slow_but(alternate, product(LENGTHS, CONCENTRATIONS)))
def test_the_mean_gradient_of_its_draws(length, concentration):
    """That of the mean, of both parameters, along random directions; z-tests at 1e-5."""
    raw, across, seen = torch.randn(3, length)
    steps = torch.zeros(8000, 2, requires_grad=True)
    loc = direction(raw + steps[:, :1] * across)
    drawn = VonMisesFisher(loc, concentration * steps[:, 1].exp()).rsample() @ seen
    slopes = torch.autograd.grad(drawn.sum(), steps)[0]
    step = torch.zeros((), requires_grad=True)
    turned = torch.autograd.functional.jacobian(lambda step: direction(raw + step * across) @ seen, step)
    nearby = [mean_cosine(length, concentration * (1.0 + h)) for h in (-1e-4, 1e-4)]
    narrowed = (nearby[1] - nearby[0]) / 2e-4 * (direction(raw) @ seen)
    for column, expected in zip(slopes.T, (mean_cosine(length, concentration) * turned, narrowed), strict=True):
        assert_mean(column, expected, detects=0.1)


@lengths
def test_the_uniform_density_is_one_over_the_area(length):
    distribution = UniformSphere(torch.eye(length)[0])
    area = 2 * np.pi ** (length / 2) / scipy.special.gamma(length / 2)
    z = distribution.sample((2000,))
    torch.testing.assert_close(distribution.log_prob(z), torch.full((2000,), -np.log(area)))
    torch.testing.assert_close(VonMisesFisher(z[0], torch.tensor(0.0)).log_prob(z), distribution.log_prob(z))
    cosine = scipy.stats.beta((length - 1) / 2, (length - 1) / 2, loc=-1, scale=2)
    for column in z.T[:2]:
        assert scipy.stats.kstest(column.numpy(), cosine.cdf).pvalue > 1e-5


@lengths
def test_the_divergence_from_the_uniform_is_the_mean_of_the_log_ratio(length):
    q = made(length, 5.0)
    p = UniformSphere(q.loc)
    z = q.sample((20_000,))
    assert_mean(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p), detects=0.1)


def test_the_elbo_takes_the_divergence_from_its_formula():
    vae = VAE((3,), 4, prior=UniformPrior, guide=Guide)
    x = vae.model(size=5)
    q, p = vae.guide.propose(x), UniformSphere(torch.eye(4)[0])
    measured = ELBO(analytic_kl=True)(vae.model, vae.guide).measure(x)
    torch.testing.assert_close(measured.kl, kl_divergence(q, p).detach())


def test_the_quadrature_is_of_the_parameters_as_they_were_before_they_were_expanded():
    distribution = VonMisesFisher(direction(torch.randn(5, 3)), torch.ones(5))
    assert distribution.expand((7, 5))._angle.cumulative.shape[:-1] == (5,)


def test_a_vector_of_zeros_has_a_direction():
    assert torch.equal(direction(torch.zeros(2, 3)), torch.eye(3)[:1].expand(2, 3))


@pytest.mark.parametrize("build", [UniformPrior, Prior, lambda latent_dim: Guide((3,), latent_dim, MLP)])
def test_a_sphere_of_two_points_is_refused(build):
    with refused("latent_dim", 1, 2, "sphere"):
        build(1)


@pytest.mark.parametrize(
    ("prior", "guide", "words"),
    [
        (UniformPrior, DiagonalNormal, ["sphere", "UniformSphere", "volume", "Normal"]),
        (StandardNormal, Guide, ["volume", "Normal", "sphere", "VonMisesFisher"]),
        (Flow, Guide, ["volume", "FlowDistribution", "sphere", "VonMisesFisher"]),
    ],
)
def test_a_prior_of_another_space_than_the_guides_is_refused(prior, guide, words):
    vae = VAE((3,), 3, prior=prior, guide=guide)
    with refused("'z'", *words):
        ELBO()(vae.model, vae.guide)(torch.zeros(2, 3))


def test_a_mixture_of_proposals_is_a_prior_on_the_sphere():
    vae = VAE((3,), 3, prior=partial(Vamp, components=4), guide=Guide)
    find_plates(vae, torch.zeros(2, 3))
    with pyro.plate("draws", 100, dim=-1):
        assert constraints.sphere.check(vae.model.prior()).all()


@pytest.mark.parametrize(
    ("prior", "proposal", "words"),
    [
        (
            dist.Normal(torch.zeros(3), 1.0).to_event(1),
            dist.Dirichlet(torch.ones(3)),
            ["volume", "Normal", "simplex", "Dirichlet"],
        ),
        (dist.Normal(0.0, 1.0), dist.Poisson(1.0), ["volume", "Normal", "value", "Poisson"]),
    ],
)
def test_densities_per_other_units_are_not_compared_though_the_draws_are_in_the_support(prior, proposal, words):
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", proposal)

    with refused("'z'", *words):
        find_plates((model, guide), torch.zeros(3))
