import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, measure, refused
from programs import Chain, ChainGuide, GaussianGuide, LatentPlateGuide, LinearGaussian, WithLatentPlate, WithPixelPlate
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from torch import nn

from pyrovae import compile
from pyrovae.engine.call import Call
from pyrovae.objectives import ELBO
from pyrovae.objectives.info_vae import InfoVAE

pytestmark = pytest.mark.usefixtures("float64")


def pair_of(structure=LinearGaussian, guide=GaussianGuide):
    model = structure()
    return model, guide(model, shift=0.4, widen=1.2)


def draws(objective, model, guide, x):
    """The traces of the guide and of the model with nothing observed that :func:`checks.measure` has seen."""
    module = objective(model, guide)
    module.start(x)
    pyro.set_rng_seed(1)
    with module.opened() as (model, guide):
        call = Call(model, guide, (x,), {}, objective.num_particles, module.plates)
        weights = call.weigh(call.draw())
        return weights, call.simulate()


def vectors(trace, weights):
    """Of each particle and datum, by loops."""
    particles, size = weights.total.shape
    values = [trace.nodes[name]["value"] for name in weights.latent_terms]

    def vector(k, b):
        if weights.plates.nesting == 1:
            return torch.cat([value[k, b].flatten() for value in values])
        return torch.cat([value[k, :, b].flatten() for value in values])

    return [[vector(k, b) for b in range(size)] for k in range(particles)]


def shares(z, simulated, bandwidth):
    """The formula, term by term, for one particle."""

    def kernel(a, b):
        return math.exp(-(a - b).square().sum().item() / (2 * bandwidth**2))

    def against(b, j):
        same = kernel(z[b], z[j]) + kernel(simulated[b], simulated[j])
        return same - kernel(z[b], simulated[j]) - kernel(z[j], simulated[b])

    size = len(z)
    return torch.tensor([sum(against(b, j) for j in range(size) if j != b) / (size - 1) for b in range(size)])


class TestValue:
    @pytest.mark.parametrize("bandwidth", [None, 0.6])
    @pytest.mark.parametrize(
        "pair",
        [
            (LinearGaussian, GaussianGuide),
            (WithPixelPlate, GaussianGuide),
            (WithLatentPlate, LatentPlateGuide),
            (Chain, ChainGuide),
        ],
    )
    def test_the_shares_are_the_formula(self, pair, bandwidth):
        model, guide = pair_of(*pair)
        x = model.data(4)
        objective = InfoVAE(0.3, 5.0, num_particles=2, bandwidth=bandwidth)
        measured = measure(objective, model, guide, x)
        weights, prior = draws(objective, model, guide, x)
        pairs = zip(vectors(weights.guide, weights), vectors(prior, weights), strict=True)
        expected = torch.stack([shares(*both, bandwidth or 2**0.5) for both in pairs]).mean(0)
        torch.testing.assert_close(measured.parts[0], expected)
        bound = measured.reconstruction - 0.7 * measured.kl - 4.3 * expected
        torch.testing.assert_close(measured.bound, bound)
        torch.testing.assert_close(measured.kl, (weights.log_proposal - weights.log_prior).mean(0).detach())

    def test_with_its_weights_at_rest_it_is_the_elbo(self):
        model, guide = pair_of()
        x = model.data(4)
        parameters = [*model.parameters(), *guide.parameters()]
        losses = [measure(objective, model, guide, x).loss for objective in (InfoVAE(0.0, 1.0, 2), ELBO(2))]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(loss, parameters) for loss in losses))

    @pytest.mark.parametrize("shift", [0.0, 0.8])
    def test_its_mean_is_the_closed_form_of_two_gaussians(self, shift):
        r""":math:`E\, k = |I + C / \sigma^2|^{-1/2} \exp(-d^\top (\sigma^2 I + C)^{-1} d / 2)` where z - z' ~ N(d, C)."""
        sigma, scale = 1.1, 0.6

        def kernel(distance, variance):
            return (1 + variance / sigma**2) ** -1 * math.exp(-(distance**2) / (sigma**2 + variance))  # two dimensions

        expected = kernel(0.0, 2 * scale**2) + kernel(0.0, 2.0) - 2 * kernel(shift, 1 + scale**2)
        if shift == 0.0:
            scale, expected = 1.0, 0.0

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.full((2,), shift), scale).to_event(1))

        model = LinearGaussian()
        module = InfoVAE(num_particles=50, bandwidth=sigma)(model, guide)
        x = model.data(3)
        with torch.no_grad():
            means = torch.stack([module.measure(x).parts[0].mean() for _ in range(400)])
        assert_mean(means, expected, detects=0.02)


class Prior(nn.Module):
    """A model whose prior learns, with draws that may not be reparameterised, and whose latents the data do not see."""

    def __init__(self, family):
        super().__init__()
        self.family = family
        self.loc = nn.Parameter(torch.tensor(0.8))
        self.scale = nn.Parameter(torch.tensor(1.4))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.family(self.loc, self.scale))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def narrow(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.0, 0.5))


class TestGradient:
    @pytest.mark.parametrize("family", [dist.Normal, NonreparameterizedNormal])
    def test_a_prior_has_that_of_the_closed_form(self, family):
        prior = Prior(family)
        parameters = [prior.loc, prior.scale]

        def kernel(distance, variance):
            return (1 + variance).rsqrt() * (-(distance**2) / (2 * (1 + variance))).exp()

        mmd = kernel(0 * prior.loc, 2 * prior.scale**2) - 2 * kernel(prior.loc, prior.scale**2 + 0.25)
        expected = torch.autograd.grad(mmd, parameters)
        module = InfoVAE(alpha=1.0, weight=1.0, num_particles=40, bandwidth=1.0)(prior, narrow)
        x = torch.randn(5)
        found = [torch.stack(torch.autograd.grad(module(x), parameters)) / len(x) for _ in range(600)]
        for draws, value in zip(torch.stack(found).T, expected, strict=True):
            assert abs(value) > 0.06
            assert_mean(draws, value, detects=0.03)

    def test_the_guide_is_drawn_to_the_prior(self):
        """At the aggregate posterior's mean, away from that of the prior, the gradient points back."""
        model, guide = pair_of()
        with torch.no_grad():
            guide.offset.fill_(1.0)
        x = model.data(200)
        with torch.no_grad():
            model.weight.zero_()
        loss = measure(InfoVAE(alpha=1.0, num_particles=5), model, guide, x).loss
        (gradient,) = torch.autograd.grad(loss, guide.offset)
        assert (gradient > 0.0).all()


def test_recorded_it_is_the_same_and_leaves_the_same_random_numbers(unfused):
    model, guide = pair_of(Chain, ChainGuide)
    x = model.data(5)
    eager = InfoVAE(0.5, num_particles=2)(model, guide)
    values, states = [], []
    for module in (eager, compile(eager, x)):
        pyro.set_rng_seed(1)
        loss = module(x)
        values.append([loss, *torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])])
        states.append(torch.rand(3))
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    torch.testing.assert_close(*states)


def test_a_model_without_latent_sites_has_no_distance():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    x = torch.randn(3)
    measured = InfoVAE()(model, lambda x: None).measure(x)
    assert measured.parts.tolist() == [[0.0] * 3]


class TestRefusals:
    def test_a_single_datum(self):
        model, guide = pair_of()
        with refused("InfoVAE", 2, "BetaELBO"):
            InfoVAE(num_particles=4)(model, guide)(model.data(1))

    def test_weights_that_reward(self):
        with refused("alpha", 1.5, 1):
            InfoVAE(alpha=1.5)
        with refused("weight", 0.5, 0.75):
            InfoVAE(alpha=0.25, weight=0.5)

    @pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan])
    def test_a_bandwidth_that_is_none(self, bandwidth):
        with refused("bandwidth", bandwidth):
            InfoVAE(bandwidth=bandwidth)
