"""The bound from draws of every component, against quadrature over them."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from checks import assert_mean, assert_mean_gradient, flat, measure
from programs import PLATES, GaussianGuide, LinearGaussian
from torch import nn

import pyrovae
from pyrovae.distributions.diagonal_normal_mixture import DiagonalNormalMixture
from pyrovae.errors import InputError
from pyrovae.guides import MixtureNormal
from pyrovae.networks import MLP
from pyrovae.objectives import IWAE, SIWAE
from pyrovae.vae import VAE
from pyrovae.weights import log_weights

pytestmark = pytest.mark.usefixtures("float64")


class TwoModes(nn.Module):
    """A guide of two normal components, the same for all data; ``family`` says of which class."""

    def __init__(self, family=dist.MixtureSameFamily):
        super().__init__()
        self.family = family
        self.logits = nn.Parameter(torch.tensor([0.3, -0.9]))
        self.loc = nn.Parameter(torch.tensor([[-0.6], [0.8]]))
        self.scale = nn.Parameter(torch.tensor([[0.9], [0.5]]))

    def forward(self, x):
        pyro.module("modes", self)
        with pyro.plate("data", len(x), dim=-1):
            components = dist.Normal(self.loc, self.scale).to_event(1)
            return pyro.sample("z", self.family(dist.Categorical(logits=self.logits), components))


@pytest.fixture
def pair():
    return LinearGaussian(data_dim=2, latent_dim=1), TwoModes(), torch.tensor([[0.6, -0.8]])


def exact(model, guide, x):
    """The bound with one draw of each component, by Gauss-Hermite quadrature over both."""
    nodes, probability = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(60))
    probability = torch.cartesian_prod(*[probability / probability.sum()] * 2).prod(1)
    z = (guide.loc + guide.scale * torch.cartesian_prod(nodes, nodes).T)[..., None]  # of each component, shape (2, n, 1)
    joint = dist.Normal(0.0, 1.0).log_prob(z)[..., 0] + dist.Normal(model.mean(z), model.noise).log_prob(x).sum(-1)
    shares = guide.logits.log_softmax(0)
    q = (shares + dist.Normal(guide.loc[:, 0], guide.scale[:, 0]).log_prob(z)).logsumexp(-1)
    return (probability * (shares[:, None] + joint - q).logsumexp(0)).sum()


def test_the_mean_gradient_is_that_of_the_exact_bound(pair):
    model, guide, _ = pair
    expected = flat(-exact(*pair), [*model.parameters(), *guide.parameters()])
    assert_mean_gradient(SIWAE(2), pair, expected)


@pytest.mark.parametrize("family", [dist.MixtureSameFamily, DiagonalNormalMixture])
def test_its_mean_is_the_exact_bound_which_is_tighter_than_iwae_of_a_draw_for_each(pair, family):
    model, _, x = pair
    guide = TwoModes(family)
    bound = measure(SIWAE(2), model, guide, x.expand(40_000, -1)).bound
    assert_mean(bound, exact(*pair).detach(), detects=0.1)
    other = measure(IWAE(1), model, TwoModes(DiagonalNormalMixture), x.expand(40_000, -1)).bound
    assert scipy.stats.ttest_ind(bound.numpy(), other.numpy(), alternative="greater").pvalue < 1e-5


@pytest.mark.parametrize("particles", [2, 6])
def test_the_mean_weight_is_p(pair, particles):
    model, guide, x = pair
    bound = measure(SIWAE(particles), model, guide, x.expand(40_000, -1)).bound
    assert_mean((bound - model.log_p(x)).exp(), 1.0, detects=0.1)


def test_reconstruction_and_kl_are_the_means_over_the_mixture(pair):
    model, guide, x = pair
    guide.requires_grad_(False)
    measured = measure(SIWAE(2), model, guide, x.expand(40_000, -1))
    weights = log_weights(model, guide, x, particles=40_000)
    for found, expected in (
        (measured.reconstruction, weights.observed),
        (measured.kl, weights.proposal - weights.latent),
    ):
        error = found.std() / 200.0, expected.std().detach() / 200.0
        assert (found.mean() - expected.mean()).abs() < 4.42 * math.hypot(*error)
        assert math.hypot(*error) < 0.02


def test_each_component_is_drawn_as_often(pair):
    model, guide, x = pair
    with torch.no_grad():
        guide.loc.mul_(1000.0)
        guide.logits.copy_(torch.tensor([-5.0, 5.0]))
    evaluated = SIWAE(6).evaluate(pyrovae.weights.Call(model, guide, (x.expand(3, -1),), {}, 6, PLATES))
    signs = evaluated.weights.guide.nodes["z"]["value"][..., 0].sign()
    assert torch.equal(signs, torch.tensor([-1.0, 1.0]).repeat(3)[:, None].expand(6, 3))


def test_without_a_mixture_it_is_iwae():
    model = LinearGaussian()
    guide, x = GaussianGuide(model, shift=0.3), model.data(4)
    for one, other in zip(measure(SIWAE(3), model, guide, x)[:4], measure(IWAE(3), model, guide, x)[:4], strict=True):
        assert torch.equal(one, other)


def test_it_trains_the_mixture_guide():
    vae = VAE((4,), 2, guide=MixtureNormal, encoder=MLP, decoder=MLP)
    x = vae.model(size=40).detach()
    before = [value.detach().clone() for value in vae.parameters()]
    pyrovae.fit(vae.model, vae.guide, x, objective=SIWAE(8), epochs=2, progress=False)
    assert not any(map(torch.equal, before, vae.parameters()))


def test_a_number_of_particles_that_is_no_multiple_is_refused(pair):
    model, guide, x = pair
    with pytest.raises(InputError, match="num_particles is 3, and the mixture at site 'z' of the guide has 2 components"):
        SIWAE(3)(model, guide)(x)


def test_components_that_cannot_be_reparameterised_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("c", dist.Poisson(2.0))
            pyro.sample("x", dist.Normal(rate, 1.0), obs=x)

    rates = nn.Parameter(torch.tensor([1.0, 4.0]))

    def guide(x):
        rate = pyro.param("rate", rates)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Poisson(rate)))

    with pytest.raises(InputError, match="site 'c' of the guide draws from MixtureSameFamily, which cannot be reparam"):
        SIWAE(2)(model, guide)(torch.zeros(3))


@pytest.mark.parametrize(
    ("inner", "names", "message"),
    [(True, ["z"], "is in a plate within the data plate"), (False, ["z", "u"], "has mixtures at the sites 'z', 'u'")],
)
def test_several_components_of_a_datum_are_refused(inner, names, message):
    def sites(draw):
        for name in names:
            if inner:
                with pyro.plate("inner", 2, dim=-2):
                    draw(name)
            else:
                draw(name)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            sites(lambda name: pyro.sample(name, dist.Normal(torch.zeros(()), 1.0)))
            pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)

    def guide(x):
        mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([-1.0, 1.0]), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            sites(lambda name: pyro.sample(name, mixture))

    with pytest.raises(InputError, match=message):
        SIWAE(2)(model, guide)(torch.zeros(3))
