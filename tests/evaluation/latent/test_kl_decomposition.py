"""The split of the average KL, against closed forms and quadrature; the density of a mixture of proposals."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import QUANTILE, assert_says, refused
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
    drawing,
    gaussian_kl,
)
from pyro import poutine
from torch import Tensor

import pyrovae
from pyrovae import guides, priors
from pyrovae.engine.pair import Pair
from pyrovae.evaluation import KLDecomposition, kl_decomposition, refine
from pyrovae.evaluation.latent.aggregate_density import LatentDraws, log_aggregate_density
from pyrovae.evaluation.latent.kl_decomposition import _controlled
from pyrovae.evaluation.latent.weighted_batches import weighed
from pyrovae.runtime.batches import as_data

pytestmark = pytest.mark.usefixtures("float64")


def known(prior, proposal):
    """A pair of scalars: z of the prior, x ~ N(0, 1) whatever it is, and z of the proposal at x."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", proposal(x))

    return model, guide


def unit(x):
    return dist.Normal(x, 1.0)


def near(found, expected, least=1e-9):
    """A z-test at level 1e-5 by the standard error that the estimate itself tells."""
    value, error = found
    return abs(value - float(expected)) < QUANTILE * error + least


def by_quadrature(x: Tensor, scale: float) -> tuple[float, float]:
    """I(n; z) and KL(q(z) || N(0, 1)) of N(x_n, scale^2)."""
    z = torch.linspace(x.min() - 10 * scale, x.max() + 10 * scale, 40_001)
    log_q = dist.Normal(x[:, None], scale).log_prob(z)
    mixture = log_q.logsumexp(0) - math.log(len(x))
    marginal = torch.trapezoid(mixture.exp() * (mixture - dist.Normal(0.0, 1.0).log_prob(z)), z)
    information = torch.trapezoid((log_q.exp() * (log_q - mixture)).mean(0), z)
    return information.item(), marginal.item()


def test_of_scalars_it_is_that_of_quadrature():
    model, guide = known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(x, 0.4))
    x = torch.randn(40)
    found = kl_decomposition((model, guide), x, 200)
    information, marginal = by_quadrature(x, 0.4)
    assert near(found.mutual_information, information)
    assert near(found.marginal_kl, marginal)
    assert 0.0 < found.mutual_information[1] < 0.01
    assert found.average_kl[0] == pytest.approx(information + marginal, abs=1e-6)


def test_without_a_formula_it_is_that_of_quadrature_too():
    """A mixture of one component, whose KL from a normal distribution torch does not know."""

    def proposal(x):
        one = dist.Normal(x[..., None], 0.4)
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(1)), one)

    model, guide = known(dist.Normal(0.0, 1.0), proposal)
    x = torch.randn(40)
    found = kl_decomposition((model, guide), x, 200)
    information, marginal = by_quadrature(x, 0.4)
    assert near(found.average_kl, information + marginal)
    assert near(found.mutual_information, information)
    assert near(found.marginal_kl, marginal)
    assert found.average_kl[1] > 0.0


def test_a_prior_that_is_a_mixture():
    """The aggregate posterior itself: nothing is left between the two."""
    x = torch.tensor([-1.0, 0.5, 2.0])
    prior = dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), dist.Normal(x, 0.4))
    found = kl_decomposition(known(prior, lambda x: dist.Normal(x, 0.4)), x, 500)
    np.testing.assert_allclose(found.kl, found.information, atol=1e-12)
    assert found.marginal_kl[0] == pytest.approx(0.0, abs=1e-12)
    assert near(found.mutual_information, by_quadrature(x, 0.4)[0])


@pytest.mark.parametrize("diagonal", [True, False])
def test_the_average_kl_of_gaussians(diagonal):
    model = LinearGaussian()
    x = model.data(60)
    prior = torch.zeros(1, 2), torch.eye(2)
    guide = GaussianGuide(model, shift=0.3, widen=1.2, diagonal=diagonal)
    found = kl_decomposition((model, guide), x, 50)
    expected = gaussian_kl(guide.moments(x), prior).mean()
    assert near(found.average_kl, expected)
    assert (found.average_kl[1] < 1e-12) == diagonal


def test_the_two_parts_add_up():
    model = LinearGaussian()
    found = kl_decomposition((model, GaussianGuide(model)), model.data(20), 5)
    assert found.mutual_information[0] + found.marginal_kl[0] == pytest.approx(found.average_kl[0], abs=1e-12)
    assert found.per_dimension is None
    assert_says(str(found.no_dimensions), "'z'", "MultivariateNormal")
    assert "MultivariateNormal" in str(found)


def test_a_guide_that_is_the_prior_tells_nothing():
    found = kl_decomposition(known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(0 * x, 1.0)), torch.randn(12), 4)
    for value, error in (found.average_kl, found.mutual_information, found.marginal_kl):
        assert value == pytest.approx(0.0, abs=1e-12)
        assert error == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(found.per_dimension, [0.0], atol=1e-12)


@pytest.mark.parametrize("clusters", [2, 5])
def test_clusters_far_apart(clusters):
    """Each datum is told up to its cluster."""
    x = 100.0 * torch.arange(float(clusters)).repeat(3)
    found = kl_decomposition(known(dist.Normal(0.0, 1.0), unit), x, 10)
    assert found.mutual_information[0] == pytest.approx(math.log(clusters), abs=1e-6)
    assert found.ceiling == pytest.approx(math.log(3 * clusters))


def test_data_far_apart_are_at_the_ceiling():
    found = kl_decomposition(known(dist.Normal(0.0, 1.0), unit), 100.0 * torch.arange(7.0), 3)
    assert found.mutual_information[0] == pytest.approx(math.log(7), abs=1e-6)
    assert f"ceiling ln N{math.log(7):>22.4f}" in str(found)


def test_a_part_of_the_data_shows_less_information():
    """I = I(half; z) + the mean over halves, and the first is from 0 to ln 2."""
    pair = known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(x, 0.1))
    x = torch.randn(60)
    whole = kl_decomposition(pair, x, 100)
    halves = [kl_decomposition(pair, half, 100) for half in x.split(30)]
    information = np.mean([half.mutual_information[0] for half in halves])
    assert information < whole.mutual_information[0] < information + math.log(2)
    assert np.mean([half.marginal_kl[0] for half in halves]) > whole.marginal_kl[0]
    assert np.mean([half.average_kl[0] for half in halves]) == pytest.approx(whole.average_kl[0])


def test_error_bars_cover():
    """95% intervals of I, on the same data with other draws: a binomial test at 1e-4."""
    pair = known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(x, 0.4))
    x = torch.randn(10)
    information, _ = by_quadrature(x, 0.4)
    found = [kl_decomposition(pair, x, 20, seed=seed).mutual_information for seed in range(200)]
    covered = sum(abs(value - information) < 1.96 * error for value, error in found)
    assert 175 <= covered <= 199


@pytest.mark.parametrize("max_rows", [1, 7, 50, 4096])
def test_the_limit_changes_nothing_but_the_draws(max_rows):
    pair = known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(x, 0.4))
    x = torch.randn(11)
    found = kl_decomposition(pair, x, 40, max_rows=max_rows)
    assert found.kl.shape == found.information.shape == (40, 11)
    assert near(found.mutual_information, by_quadrature(x, 0.4)[0])


def test_no_run_of_the_programs_has_more_rows_than_the_limit():
    rows = []

    def proposal(x):
        return dist.Normal(x, 0.4)

    model, _ = known(dist.Normal(0.0, 1.0), proposal)

    def counting(x):
        with pyro.plate("data", len(x)):
            rows.append(pyro.sample("z", proposal(x)).numel())

    kl_decomposition((model, counting), torch.randn(70), 3, max_rows=90)
    assert sum(count > 90 for count in rows) <= 2, "but for the look at two particles"
    assert all(count <= 90 for count in rows[-100:])
    assert sum(rows) > 3 * 70 * 70


@pytest.mark.parametrize("structure", [WithPixelPlate, WithDeterministic])
def test_the_structure_of_a_program_changes_nothing(structure):
    model = LinearGaussian()
    guide, x = GaussianGuide(model, diagonal=True), model.data(9)
    plain, other = kl_decomposition((model, guide), x, 4), kl_decomposition((structure(), guide), x, 4)
    np.testing.assert_allclose(other.information, plain.information)
    np.testing.assert_allclose(other.per_dimension, plain.per_dimension)


def mixture_information(guide, x, draws=4000):
    """I(n; z) of a Gaussian guide by its moments alone, and its standard error."""
    loc, covariance = guide.moments(x)
    q = dist.MultivariateNormal(loc, covariance)
    z = q.sample((draws,))
    log_q = q.log_prob(z[:, :, None])
    terms = q.log_prob(z) - log_q.logsumexp(-1) + math.log(len(x))
    return terms.mean().item(), (terms.var(0).sum() / draws).sqrt().item() / len(x)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_sites_that_depend_on_each_other(order):
    model = Chain()
    guide, x = ChainGuide(model, order, widen=0.8), model.data(15)
    found = kl_decomposition((model, guide), x, 300, max_rows=500)
    expected, error = mixture_information(guide, x)
    assert near(found.mutual_information, expected, QUANTILE * error)
    assert near(found.average_kl, gaussian_kl(guide.moments(x), (torch.zeros(1, 2), model.covariance)).mean())
    if order == "ba":
        assert found.per_dimension is None
        assert_says(str(found.no_dimensions), "orders")
    else:
        assert found.per_dimension is not None
        assert found.per_dimension.sum() == pytest.approx(found.average_kl[0])


def test_latents_in_an_inner_plate():
    model = WithLatentPlate()
    guide, x = LatentPlateGuide(model, diagonal=True), model.data(15)
    found = kl_decomposition((model, guide), x, 300, max_rows=500)
    plain = LinearGaussian()
    diagonal = kl_decomposition((plain, GaussianGuide(plain, diagonal=True)), x, 300)
    assert near(found.mutual_information, diagonal.mutual_information[0], QUANTILE * diagonal.mutual_information[1])
    np.testing.assert_allclose(found.per_dimension, diagonal.per_dimension)


def test_discrete_latents():
    """By enumeration."""
    model = Mixture()
    guide, x = MixtureGuide(model, 0.7), torch.randn(30)
    found = kl_decomposition((model, guide), x, 400)
    q = (0.7 * model.joint(x)).softmax(-1).detach()
    information = (q * (q.log() - q.mean(0).log())).sum(-1).mean()
    marginal = (q.mean(0) * (q.mean(0).log() - model.weights.log())).sum()
    assert near(found.mutual_information, information)
    assert near(found.marginal_kl, marginal)


def test_the_kl_of_each_dimension():
    model = LinearGaussian()
    guide, x = GaussianGuide(model, widen=1.3, diagonal=True), model.data(40)
    found = kl_decomposition((model, guide), x, 2, max_rows=30)
    q = guide.proposal(x).base_dist
    expected = torch.distributions.kl_divergence(q, dist.Normal(torch.zeros(40, 2), 1.0)).mean(0)
    np.testing.assert_allclose(found.per_dimension, expected.detach())
    assert found.per_dimension is not None
    assert found.per_dimension.sum() == pytest.approx(found.average_kl[0])
    assert "of 2 dimensions" in str(found)


def test_the_kl_of_each_dimension_is_drawn_where_there_is_no_formula():
    """A Student-t prior of so many degrees of freedom that it is normal."""
    model, guide = known(dist.StudentT(1e9), lambda x: dist.Normal(x, 0.5))
    x = torch.randn(30)
    found = kl_decomposition((model, guide), x, 500)
    exact = torch.distributions.kl_divergence(dist.Normal(x, 0.5), dist.Normal(0 * x, 1.0)).mean()
    assert found.per_dimension is not None
    assert found.per_dimension.sum() == pytest.approx(found.average_kl[0])
    assert near(found.average_kl, exact, 1e-6)


@pytest.mark.parametrize(
    ("prior", "guide"),
    [
        (priors.StandardNormal, guides.Flow),
        (priors.StandardNormal, guides.InverseAutoregressive),
        (priors.Vamp, guides.MixtureNormal),
        (priors.Flow, guides.FullRankNormal),
        (priors.Hierarchical, guides.Hierarchical),
        (priors.Hierarchical, guides.Ladder),
        (priors.UniformSphere, guides.VonMisesFisher),
    ],
)
@torch.no_grad()
def test_the_mixture_is_that_of_the_guide_run_at_each_datum(prior, guide):
    vae = pyrovae.VAE((4,), 3, prior=prior, guide=guide)
    x = torch.rand(7, 4).round()
    pair = Pair(vae.model, vae.guide)
    (part,) = weighed(pair, as_data(x), 1, x.device, 100, "this test")
    latents = {name: part.draws.nodes[name]["value"][0] for name in part.weights.latent_terms}
    log_q = []
    for datum in x:
        trace = poutine.trace(drawing(vae.guide, **latents)).get_trace(datum.expand(7, 4))
        trace.compute_log_prob()
        log_q.append(sum(trace.nodes[name]["log_prob"] for name in latents))
    expected = torch.stack(log_q).logsumexp(0) - math.log(7)
    (found,) = log_aggregate_density(pair, as_data(x), [LatentDraws.from_trace(part.draws, part.weights)], x.device, 15)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    split = kl_decomposition(vae, x, 2, max_rows=20)
    assert split.mutual_information[0] + split.marginal_kl[0] == pytest.approx(split.average_kl[0])


def test_a_refined_guide():
    vae = pyrovae.VAE((4,), 2)
    x = torch.rand(6, 4).round()
    found = kl_decomposition((vae.model, refine(vae, steps=5)), x, 2, max_rows=100)
    assert found.kl.shape == (2, 6)


def test_one_draw_has_no_error_and_the_caller_keeps_the_noise():
    pair = known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(x, 0.4))
    x = torch.randn(5)
    before = torch.get_rng_state()
    first, again, other = (kl_decomposition(pair, x, 1, seed=seed) for seed in (0, 0, 1))
    assert math.isnan(first.mutual_information[1])
    np.testing.assert_array_equal(first.information, again.information)
    assert not np.array_equal(first.information, other.information)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_table():
    found = KLDecomposition(np.full((2, 100), 3.0), np.full((2, 100), 1.0), np.array([0.5, 1.5, 1.0]))
    lines = str(found).splitlines()
    assert lines[0] == "KL from the prior of 100 data, 2 draws each, in nats"
    assert lines[2].split() == ["average", "KL", "3.0000", "±", "0.0000"]
    assert lines[3].split()[-3:] == ["1.0000", "±", "0.0000"]
    assert lines[4].split()[-3:] == ["2.0000", "±", "0.0000"]
    assert lines[-1].split() == ["KL", "0.5000", "1.0000", "1.5000"]


def test_a_prior_with_a_context_is_not_one():
    def model(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.randn(6)
    with refused("prior", "context"):
        kl_decomposition((model, guide), {"x": x, "c": torch.arange(6.0)})
    same = kl_decomposition((model, guide), {"x": x, "c": torch.zeros(6)}, 3)
    plain = kl_decomposition(known(dist.Normal(0.0, 1.0), unit), x, 3)
    np.testing.assert_array_equal(same.information, plain.information)


def test_a_guide_with_dropout_cannot_be_scored():
    """In evaluation mode a layer drops nothing; this one always does."""
    model, guide = known(dist.Normal(0.0, 1.0), lambda x: dist.Normal(torch.dropout(x, 0.5, train=True), 0.1))
    with refused("guide", "nats", "eval()"):
        kl_decomposition((model, guide), 10 + torch.arange(20.0))


def test_an_auxiliary_site_has_no_known_density():
    model, _ = known(dist.Normal(0.0, 1.0), unit)

    def guide(x):
        with pyro.plate("data", len(x)):
            aid = pyro.sample("aid", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(x + aid, 1.0))

    with refused("'aid'", "guide"):
        kl_decomposition((model, guide), torch.randn(4))


def test_a_point_has_an_infinite_kl():
    with refused("'z'", "Delta", "KL"):
        kl_decomposition(known(dist.Normal(0.0, 1.0), dist.Delta), torch.randn(4))


@pytest.mark.parametrize("name", ["num_samples", "max_rows"])
def test_numbers_are_at_least_one(name):
    with refused(name, 0, 1):
        kl_decomposition(known(dist.Normal(0.0, 1.0), unit), torch.randn(4), **{name: 0})


def test_what_the_draws_are_off_the_formula_is_taken_out():
    """And nothing where they are not off it."""
    control, noise = torch.randn(2, 10, 200)
    values = 1.5 + 3.0 * control + 0.01 * noise
    torch.testing.assert_close(_controlled(values, control).std(), (0.01 * noise).std(), rtol=0.05, atol=0.0)
    torch.testing.assert_close(_controlled(values, control).mean(), (values - 3.0 * control).mean(), rtol=0.0, atol=1e-3)
    assert torch.equal(_controlled(values, torch.zeros_like(control)), values)
