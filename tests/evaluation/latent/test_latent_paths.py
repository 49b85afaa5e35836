"""Latents that nobody drew: along dimensions, and between data."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from programs import (
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    Mixture,
    MixtureGuide,
    WithDeterministic,
    WithLatentPlate,
    WithPixelPlate,
    functions,
)

import pyrovae
from pyrovae import guides, priors
from pyrovae.evaluation import interpolate, traverse
from pyrovae.evaluation.latent.interpolate import great_circle

pytestmark = pytest.mark.usefixtures("float64")


def gaussian():
    model = LinearGaussian()
    return model, GaussianGuide(model)


def vector(prior, proposal, likelihood=None):
    """A pair whose latent is of this prior and proposal, and whose x, of the latent's shape, has the latent for its mean."""

    def model(x, **_):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood or dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x, **_):
        with pyro.plate("data", len(x)):
            pyro.sample("z", proposal(x))

    return model, guide


def unit(x):
    return dist.Normal(x, 0.5).to_event(1)


standard = dist.Normal(torch.zeros(2), 1.0).to_event(1)


def test_over_the_prior_one_dimension_takes_its_quantiles():
    model, guide = gaussian()
    x = model.data(1)
    found = traverse((model, guide), x, steps=7)
    assert found.latents.shape == (2, 7, 2)
    mean = model.posterior(x)[0][0]
    line = torch.linspace(-3.0, 3.0, 7)
    torch.testing.assert_close(found.latents[0], torch.stack([line, mean[1].expand(7)], -1))
    torch.testing.assert_close(found.latents[1], torch.stack([mean[0].expand(7), line], -1))
    torch.testing.assert_close(found.levels, dist.Normal(0.0, 1.0).cdf(line))
    torch.testing.assert_close(found.means, model.mean(found.latents).detach())
    assert (found.dimensions, found.over) == ((0, 1), "prior")
    assert not found.means.requires_grad


def test_over_the_posterior_it_goes_three_deviations_to_either_side():
    model, guide = gaussian()
    x = model.data(1)
    found = traverse((model, guide), x, over="posterior", steps=3, dimensions=[1])
    mean, covariance = model.posterior(x)
    line = mean[0, 1] + 3 * covariance[1, 1].sqrt() * torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(found.latents, torch.stack([mean[0, 0].expand(3), line], -1)[None])
    assert found.levels.tolist() == [-3.0, 0.0, 3.0]


def test_quantiles_of_a_prior_that_knows_none_are_those_of_draws():
    prior = dist.MultivariateNormal(torch.tensor([1.0, -2.0]), torch.diag(torch.tensor([4.0, 0.25])))
    found = traverse(vector(prior, unit), torch.zeros(1, 2), steps=3, num_samples=20_000)
    median = torch.stack([found.latents[0, 1, 0], found.latents[1, 1, 1]])
    error = math.sqrt(math.pi / 2 / 20_000) * torch.tensor([2.0, 0.5])
    assert ((median - torch.tensor([1.0, -2.0])).abs() < 5 * error).all()


def test_deviations_of_a_proposal_that_knows_none_are_those_of_draws():
    def proposal(x):
        affine = torch.distributions.AffineTransform(x, torch.tensor([2.0, 0.5]), event_dim=1)
        return dist.TransformedDistribution(dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1), [affine])

    found = traverse(vector(standard, proposal), torch.zeros(1, 2), over="posterior", steps=2, num_samples=20_000)
    width = torch.stack([found.latents[0, 1, 0] - found.latents[0, 0, 0], found.latents[1, 1, 1] - found.latents[1, 0, 1]])
    torch.testing.assert_close(width, 6 * torch.tensor([2.0, 0.5]), rtol=0.03, atol=0.0)


@pytest.mark.parametrize("structure", [WithPixelPlate, WithDeterministic])
def test_the_structure_of_a_program_does_not_change_what_it_decodes(structure):
    model, guide = gaussian()
    x = model.data(1)
    torch.testing.assert_close(traverse((structure(), guide), x).means, traverse((model, guide), x).means)


def test_plain_functions():
    model, guide = gaussian()
    x = model.data(4)
    pair = functions(model, guide)
    torch.testing.assert_close(traverse(pair, x[:1]).means, traverse((model, guide), x[:1]).means)
    plain = interpolate(pair, x[:2], x[2:])
    torch.testing.assert_close(plain.means, interpolate((model, guide), x[:2], x[2:]).means)


def test_what_is_given_beside_the_data_is_repeated():
    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + c, 1.0).to_event(1), obs=x)

    guide = vector(standard, unit)[1]
    given = {"x": torch.randn(2, 2), "c": torch.tensor([[10.0], [20.0]])}
    found = interpolate((model, guide), given, {**given, "x": torch.randn(2, 2)}, steps=3)
    torch.testing.assert_close(found.means, found.latents + given["c"][:, None])
    with refused("'c'", "start", "end"):
        interpolate((model, guide), given, {**given, "c": torch.zeros(2, 1)})
    with refused("start", ["c"], "end", []):
        interpolate((model, guide), given, given["x"])


def test_parts_of_every_kind():
    vae = pyrovae.VAE((2, 3), 4, prior=priors.Flow, guide=guides.MixtureNormal)
    x = torch.rand(5, 2, 3).round()
    assert traverse(vae, x[:1], num_samples=50, steps=3).means.shape == (4, 3, 2, 3)
    found = interpolate(vae, x[:2], x[2:4], num_samples=50, steps=4)
    torch.testing.assert_close(found.means, vae.model.decode(found.latents).mean.detach())


def test_the_straight_way():
    model, guide = gaussian()
    x = model.data(6)
    found = interpolate((model, guide), x[:3], x[3:], steps=5)
    start, end = model.posterior(x)[0].split(3)
    assert found.latents.shape == (3, 5, 2)
    torch.testing.assert_close(found.latents[:, 0], start)
    torch.testing.assert_close(found.latents[:, 2], (start + end) / 2)
    torch.testing.assert_close(found.latents[:, 4], end)
    torch.testing.assert_close(found.means, model.mean(found.latents).detach())
    torch.testing.assert_close(found.shares, torch.linspace(0.0, 1.0, 5))


def test_the_great_circle_keeps_to_angles_and_norms():
    model, guide = gaussian()
    x = model.data(6)
    found = interpolate((model, guide), x[:3], x[3:], course="great_circle", steps=5)
    start, end = model.posterior(x)[0].split(3)
    torch.testing.assert_close(found.latents[:, 0], start)
    torch.testing.assert_close(found.latents[:, 4], end)
    norms = found.latents.norm(dim=-1)
    torch.testing.assert_close(norms, norms[:, :1] + torch.linspace(0.0, 1.0, 5) * (norms[:, 4:] - norms[:, :1]))
    steps = torch.cosine_similarity(found.latents[:, 1:], found.latents[:, :-1], -1).acos()
    torch.testing.assert_close(steps, steps[:, :1].expand(-1, 4))


def test_a_quarter_of_a_circle():
    point = great_circle(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([0.5]))
    torch.testing.assert_close(point, 3 * torch.tensor([0.5, 0.5]).sqrt())


def test_a_great_circle_between_ends_in_one_direction_is_straight():
    start, share = torch.tensor([1.0, 2.0]), torch.tensor([0.25])
    torch.testing.assert_close(great_circle(start, 3 * start, share), 1.5 * start)
    torch.testing.assert_close(great_circle(start, start, share), start)


def test_a_great_circle_needs_a_direction():
    with refused("course='straight'"):
        great_circle(torch.ones(3), -2 * torch.ones(3), torch.tensor([0.5]))


def test_repeats_and_leaves_the_callers_noise():
    model, guide = vector(dist.MultivariateNormal(torch.zeros(2), torch.eye(2)), unit)
    before = torch.get_rng_state()
    first, again, other = (traverse((model, guide), torch.zeros(1, 2), num_samples=100, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents, other.latents)
    assert torch.equal(torch.get_rng_state(), before)


def test_several_latent_sites_have_no_path():
    model = Chain()
    with refused(2, ("a", "b"), "pyro.poutine.condition(model, data={...})"):
        traverse((model, ChainGuide(model)), model.data(1))
    with refused(2, ("a", "b"), "pyro.poutine.condition(model, data={...})"):
        interpolate((model, ChainGuide(model)), model.data(1), model.data(1))


def test_latents_that_are_no_vector_have_no_path():
    model = WithLatentPlate()
    with refused("'z'", (), "(D,)", ".to_event(1)"):
        traverse((model, LatentPlateGuide(model)), model.data(1))
    mixture = Mixture()
    with refused("'c'", (), "(D,)", ".to_event(1)"):
        traverse((mixture, MixtureGuide(mixture)), torch.zeros(1))


def test_a_vector_in_a_plate_of_its_own_has_no_path():
    def program(observe):
        def run(x):
            with pyro.plate("data", len(x), dim=-1):
                with pyro.plate("parts", 3, dim=-2):
                    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                if observe:
                    pyro.sample("x", dist.Normal(z.sum((-3, -1)), 1.0), obs=x)

        return run

    with refused("'z'", (2,), "plate", "(D,)"):
        traverse((program(True), program(False)), torch.zeros(1))


def test_discrete_latents_have_no_path():
    prior = dist.OneHotCategorical(torch.ones(3))
    pair = vector(prior, lambda x: dist.OneHotCategorical(torch.ones(len(x), 3)), dist.Normal(0.0, 1.0))
    with refused("'z'", "discrete", "pyro.poutine.condition(model, data={...})"):
        traverse(pair, torch.zeros(1))


def test_a_path_stays_within_the_support_of_the_prior():
    vae = pyrovae.VAE((4,), 3, prior=priors.UniformSphere, guide=guides.VonMisesFisher)
    x = torch.rand(2, 4).round()
    with refused("UniformSphere", "Sphere"):
        interpolate(vae, x[:1], x[1:])


def test_what_begins_must_be_one_datum():
    with refused("x", 3, "x[:1]"):
        traverse(vector(standard, unit), torch.zeros(3, 2))


def test_ends_match():
    with refused("start", (3, 2), "end", (2, 2)):
        interpolate(vector(standard, unit), torch.zeros(3, 2), torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"over": "both"}, ["over", "'both'", "'prior'", "'posterior'"]),
        ({"steps": 1}, ["steps", 1, 2]),
        ({"dimensions": [2]}, ["dimension", 2, 0, 1]),
        ({"dimensions": []}, ["dimensions", "empty"]),
        ({"num_samples": 0}, ["num_samples", 0, 1]),
    ],
)
def test_options_of_a_traversal(options, words):
    with refused(*words):
        traverse(vector(standard, unit), torch.zeros(1, 2), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"course": "round"}, ["course", "'round'", "'straight'", "'great_circle'"]),
        ({"steps": 1}, ["steps", 1, 2]),
        ({"num_samples": 0}, ["num_samples", 0, 1]),
    ],
)
def test_options_of_an_interpolation(options, words):
    with refused(*words):
        interpolate(vector(standard, unit), torch.zeros(1, 2), torch.zeros(1, 2), **options)
