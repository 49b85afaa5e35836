import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, measure, refused
from programs import (
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    WithLatentPlate,
    WithPixelPlate,
)
from pyro import poutine

from pyrovae import compile
from pyrovae.objectives import ELBO
from pyrovae.objectives.tcvae import TCVAE

pytestmark = pytest.mark.usefixtures("float64")


class Diagonal(GaussianGuide):
    def __init__(self, model, shift=0.0, widen=1.0):
        super().__init__(model, shift, widen, diagonal=True)


class FullPrior(LinearGaussian):
    """Whose prior is no product over dimensions."""

    def latent(self):
        covariance = torch.tensor([[1.0, 0.7], [0.7, 2.0]])
        return pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), covariance))


class TwoSites(Diagonal):
    """The coordinates at two sites, independent given x."""

    def forward(self, x):
        loc, scale = x @ self.slope.T + self.offset, self.factor.diagonal()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", dist.Normal(loc[:, 0], scale[0]))
            pyro.sample("b", dist.Normal(loc[:, 1], scale[1]))


def pair_of(structure=LinearGaussian, family=Diagonal):
    model = structure()
    return model, family(model, shift=0.3, widen=1.2)


def weights_of(objective, model, guide, x):
    """Those that :func:`checks.measure` has seen."""
    module = objective(model, guide)
    module.start(x)
    pyro.set_rng_seed(1)
    return module.weights(x)


def latents(weights):
    """Shape ``(K, B, 2)``."""
    if "a" in weights.latent_terms:
        return torch.stack([weights.guide.nodes[name]["value"] for name in "ab"], -1)
    z = weights.guide.nodes["z"]["value"]
    if weights.guide.nodes["z"]["fn"].event_dim == 0:
        return z.transpose(-1, -2)
    return z.reshape(len(z), -1, z.shape[-1])


def mixture_terms(guide, x, weights):
    """The three terms where the posteriors of x are, in equal parts, all that there is; by loops, shape ``(3, B)``."""
    z, loc = latents(weights), x @ guide.slope.T + guide.offset
    posteriors = [dist.Normal(row, guide.factor.diagonal()) for row in loc]
    every = []
    for k in range(z.shape[0]):
        for i in range(len(x)):
            log_q = torch.stack([posterior.log_prob(z[k, i]) for posterior in posteriors])
            joint = log_q.sum(-1).exp().mean().log()
            marginals = sum(log_q[:, d].exp().mean().log() for d in range(2))
            every += [log_q[i].sum() - joint, joint - marginals, marginals - weights.log_prior[k, i]]
    return torch.stack(every).reshape(z.shape[0], len(x), 3).mean(0).T


class TestTerms:
    @pytest.mark.parametrize(
        ("structure", "family"),
        [
            (LinearGaussian, Diagonal),
            (WithPixelPlate, Diagonal),
            (WithLatentPlate, LatentPlateGuide),
            (Chain, TwoSites),
            (FullPrior, Diagonal),
        ],
    )
    def test_of_a_batch_as_the_population_they_are_those_of_the_mixture(self, structure, family):
        model, guide = pair_of(structure, family)
        x = model.data(4)
        objective = TCVAE(2.0, 3.0, 0.5, num_particles=2, dataset_size=1)
        measured = measure(objective, model, guide, x)
        weights = weights_of(objective, model, guide, x)
        expected = mixture_terms(guide, x, weights)
        torch.testing.assert_close(measured.parts, expected.detach())
        assert (measured.parts[:2].mean(1) > 0.05).all()
        surrogate = weights.log_likelihood.mean(0) - torch.tensor([2.0, 3.0, 0.5]) @ expected
        torch.testing.assert_close(measured.bound, surrogate.detach())
        parameters = [*model.parameters(), *guide.parameters()]
        gradients = torch.autograd.grad(measured.loss, parameters)
        torch.testing.assert_close(gradients, torch.autograd.grad(-surrogate.sum(), parameters))

    def test_they_add_up_to_the_kl(self):
        model, guide = pair_of(FullPrior)
        x = model.data(5)
        measured = measure(TCVAE(num_particles=3), model, guide, x)
        torch.testing.assert_close(measured.parts.sum(0), measured.kl)
        elbo, ours = measure(ELBO(3), model, guide, x), measure(TCVAE(1.0, 1.0, 1.0, 3), model, guide, x)
        torch.testing.assert_close(ours.loss, elbo.loss)
        torch.testing.assert_close(ours.bound, elbo.bound)

    def test_of_a_guide_that_ignores_its_data_the_first_two_are_nothing(self):
        model, guide = pair_of()
        with torch.no_grad():
            guide.slope.zero_()
        measured = measure(TCVAE(num_particles=2, dataset_size=1), model, guide, model.data(6))
        torch.testing.assert_close(measured.parts[:2], torch.zeros(2, 6), rtol=0, atol=1e-12)
        torch.testing.assert_close(measured.parts[2], measured.kl)

    def test_of_one_coordinate_there_is_no_correlation(self):
        model = LinearGaussian(latent_dim=1)
        measured = measure(TCVAE(num_particles=2), model, Diagonal(model, shift=0.3), model.data(6))
        torch.testing.assert_close(measured.parts[1], torch.zeros(6), rtol=0, atol=1e-12)
        assert measured.parts[0].min() > 0.0

    def test_of_many_data_they_are_the_closed_forms(self):
        r"""The aggregate of :math:`q(z \mid x) = N(A x + c, S)` over :math:`x \sim N(b, C)` is N(A b + c, A C A' + S).

        The bias of the minibatch falls with its size: at 500 it is well below what is detected.
        """
        model, guide = pair_of()
        with torch.no_grad():
            guide.slope.copy_(torch.tensor([[0.8, 0.5, 0.1], [0.7, 0.5, 0.2]]))
            guide.factor.copy_(torch.tensor([0.7, 0.8]).diag())
            covariance = model.weight @ model.weight.T + model.noise**2 * torch.eye(3)
            slope, variance = guide.slope, guide.factor.diagonal().square()
            aggregate = slope @ covariance @ slope.T + variance.diag()
            centre = slope @ model.bias + guide.offset
            information = (aggregate.logdet() - variance.log().sum()) / 2
            correlation = (aggregate.diagonal().log().sum() - aggregate.logdet()) / 2
            spread = aggregate.diagonal()
            dimensions = 0.5 * (spread + centre.square() - 1 - spread.log()).sum()
            module = TCVAE(dataset_size=1)(model, guide)
            means = torch.stack([module.measure(model.data(500)).parts.mean(1) for _ in range(150)])
        for found, expected in zip(means.T, (information, correlation, dimensions), strict=True):
            assert expected > 0.1
            assert_mean(found, expected, detects=0.03)

    def test_of_any_rank_a_coordinate_is_a_scalar(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
                pyro.sample("x", dist.Normal(z.sum((-1, -2)), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x[:, None, None] * torch.arange(6.0).reshape(2, 3), 1.0).to_event(2))

        def flat_model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(6), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

        def flat_guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x[:, None] * torch.arange(6.0), 1.0).to_event(1))

        x = torch.randn(4)
        square, flat = measure(TCVAE(), model, guide, x), measure(TCVAE(), flat_model, flat_guide, x)
        torch.testing.assert_close(square.parts, flat.parts)


def test_whole_numbers_have_probabilities_for_densities():
    """Of two sites, of which nothing flows through the first to the second."""

    def model(x):
        with pyro.plate("data", len(x)):
            c, d = (pyro.sample(name, dist.Categorical(torch.ones(3))) for name in "cd")
            pyro.sample("x", dist.Normal(c + d, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            for name in "cd":
                pyro.sample(name, dist.Categorical(logits=x[:, None] * torch.arange(3.0)))

    with torch.no_grad():
        measured = TCVAE(num_particles=2)(model, guide).measure(torch.randn(4))
    torch.testing.assert_close(measured.parts.sum(0), measured.kl)


class TestDatasetSize:
    def test_it_shifts_the_terms_by_constants(self):
        model, guide = pair_of()
        x = model.data(5)
        one, many = (measure(TCVAE(dataset_size=size), model, guide, x).parts for size in (1, 100))
        shift = math.log(100) * torch.tensor([1.0, 1.0, -2.0])  # of two dimensions
        torch.testing.assert_close(many, one + shift[:, None])

    def test_it_has_no_gradient(self):
        model, guide = pair_of()
        x = model.data(5)
        losses = [measure(TCVAE(dataset_size=size), model, guide, x).loss for size in (1, 100)]
        gradients = [torch.autograd.grad(loss, [*guide.parameters()]) for loss in losses]
        torch.testing.assert_close(*gradients)
        assert abs(losses[0] - losses[1]) > 1.0


def test_recorded_it_is_the_same(unfused):
    model, guide = pair_of(Chain, TwoSites)
    x = model.data(5)
    eager = TCVAE(2.0, num_particles=2)(model, guide)
    values = []
    for module in (eager, compile(eager, x)):
        pyro.set_rng_seed(1)
        loss = module(x)
        values.append([loss, *torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])])
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


class TestRefusals:
    def test_a_full_covariance(self):
        model = LinearGaussian()
        with refused("'z'", "MultivariateNormal", "TCVAE", "Normal(...).to_event(1)", "BetaELBO"):
            TCVAE()(model, GaussianGuide(model))(model.data(3))

    @pytest.mark.parametrize("frozen", [False, True])
    def test_a_chain(self, frozen):
        model, guide = pair_of(Chain, ChainGuide)
        guide.requires_grad_(not frozen)
        x = model.data(3)
        with refused("'b'", "'a'", "TCVAE", "BetaELBO"):
            TCVAE()(model, guide)(x)
        with torch.no_grad(), refused("'b'", "'a'", "TCVAE", "BetaELBO"):
            TCVAE()(model, guide)(x)
        with refused("'b'", "'a'", "TCVAE", "BetaELBO"):
            TCVAE().loss(model, guide, x)

    @pytest.mark.parametrize("handler", [lambda fn: poutine.scale(fn, 0.5), lambda fn: poutine.mask(fn, torch.tensor(True))])
    def test_scaled_and_masked_sites(self, handler):
        model, guide = pair_of()
        with refused("'z'", "Normal", "poutine.scale", "poutine.mask"):
            TCVAE()(handler(model), handler(guide))(model.data(3))

    def test_an_auxiliary_site(self):
        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("noise", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

        model = LinearGaussian()
        with refused("'noise'", "auxiliary", "BetaELBO"):
            TCVAE()(model, guide)(model.data(3))

    def test_a_dataset_of_nothing(self):
        with refused("dataset_size", 0, 1):
            TCVAE(dataset_size=0)
