import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, measure
from programs import (
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    WithLatentPlate,
    WithPixelPlate,
    gaussian_kl,
)
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from pyrovae.engine.log_weights import log_weights
from pyrovae.objectives import ELBO

pytestmark = pytest.mark.usefixtures("float64")
REPEATS = 30_000


@pytest.fixture
def pair():
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.2, widen=1.2, diagonal=True)


def prior_moments(x, latent_dim=2):
    return torch.zeros(len(x), latent_dim), torch.eye(latent_dim)


def repeated(objective, model, guide, x):
    """Independent evaluations on one datum, as one batch of it."""
    with torch.no_grad():
        return objective(model, guide).measure(x[:1].expand(REPEATS, *x.shape[1:]))


class TestBound:
    @pytest.mark.parametrize("particles", [1, 4])
    @pytest.mark.parametrize("analytic_kl", [False, True])
    def test_it_falls_short_of_log_p_by_the_divergence(self, pair, particles, analytic_kl):
        model, guide = pair
        x = model.data(1)
        measured = repeated(ELBO(particles, analytic_kl), model, guide, x)
        gap = gaussian_kl(guide.moments(x), model.posterior(x))
        assert gap > 0.1
        assert_mean(measured.bound, model.log_p(x) - gap, detects=0.08)

    @pytest.mark.parametrize("analytic_kl", [False, True])
    def test_it_is_reconstruction_minus_kl(self, pair, analytic_kl):
        model, guide = pair
        measured = ELBO(3, analytic_kl)(model, guide).measure(model.data(5))
        torch.testing.assert_close(measured.bound, measured.reconstruction - measured.kl)

    def test_more_particles_lower_the_variance(self, pair):
        model, guide = pair
        x = model.data(1)
        one, ten = (repeated(ELBO(particles), model, guide, x).bound.var() for particles in (1, 10))
        assert ten / one == pytest.approx(0.1, rel=0.1)


class TestAnalyticKL:
    def test_it_is_the_closed_form(self, pair):
        model, guide = pair
        x = model.data(5)
        measured = ELBO(2, analytic_kl=True)(model, guide).measure(x)
        torch.testing.assert_close(measured.kl, gaussian_kl(guide.moments(x), prior_moments(x)))

    def test_it_is_the_closed_form_for_a_full_covariance(self):
        class FullPrior(LinearGaussian):
            def latent(self):
                return pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))

        model = FullPrior()
        guide = GaussianGuide(model, shift=0.2, widen=1.2)
        x = model.data(5)
        measured = ELBO(2, analytic_kl=True)(model, guide).measure(x)
        torch.testing.assert_close(measured.kl, gaussian_kl(guide.moments(x), prior_moments(x)))

    def test_it_is_the_closed_form_beside_and_within_an_inner_plate(self):
        beside = WithPixelPlate()
        within = WithLatentPlate()
        x = beside.data(5)
        for model, guide in [
            (beside, GaussianGuide(beside, shift=0.2, diagonal=True)),
            (within, LatentPlateGuide(within, shift=0.2)),
        ]:
            measured = ELBO(3, analytic_kl=True)(model, guide).measure(x)
            expected = gaussian_kl((guide.moments(x)[0], guide.factor.detach().diagonal().square().diag()), prior_moments(x))
            torch.testing.assert_close(measured.kl, expected)

    def test_it_lowers_the_variance_of_the_gradient(self, pair):
        model, guide = pair
        x = model.data(1).expand(150, 3)

        def variance(analytic_kl):
            pyro.set_rng_seed(0)
            loss = ELBO(analytic_kl=analytic_kl)(model, guide)
            gradients = [torch.autograd.grad(loss(row[None]), guide.offset)[0] for row in x]
            return torch.stack(gradients).var(0)

        weak_decoder = 0.1 * model.weight.detach()
        with torch.no_grad():
            model.weight.copy_(weak_decoder)
        assert (variance(True) < 0.5 * variance(False)).all()

    def test_of_a_chain_it_is_the_formula_given_what_came_before(self):
        model = Chain()
        guide = ChainGuide(model, shift=0.3, widen=1.3)
        x = model.data(4)
        kl = measure(ELBO(3, analytic_kl=True), model, guide, x).kl
        pyro.set_rng_seed(1)
        traces = log_weights((model, guide), x, num_samples=3)
        expected = sum(
            torch.distributions.kl_divergence(traces.guide.nodes[name]["fn"], traces.model.nodes[name]["fn"])
            for name in ("a", "b")
        )
        torch.testing.assert_close(kl, expected.mean(0))

    @pytest.mark.parametrize("order", ["ab", "ba"])
    def test_of_a_chain_the_mean_is_right_whatever_the_order(self, order):
        model = Chain("ab")
        guide = ChainGuide(model, order, shift=0.3, widen=1.3)
        x = model.data(1)
        expected = gaussian_kl(guide.moments(x), (torch.zeros(1, 2), model.covariance))
        assert_mean(repeated(ELBO(analytic_kl=True), model, guide, x).kl, expected, detects=0.08)

    def test_of_a_chain_in_another_order_it_stays_monte_carlo(self):
        model = Chain("ab")
        guide = ChainGuide(model, "ba", shift=0.3)
        assert same_as_monte_carlo(model, guide, model.data(4))

    def test_families_without_a_formula_stay_monte_carlo(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.StudentT(4.0, 0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2, 0.7))

        assert same_as_monte_carlo(model, guide, torch.randn(4))

    @pytest.mark.parametrize("handler", [lambda fn: poutine.scale(fn, 0.5), lambda fn: poutine.mask(fn, torch.tensor(True))])
    def test_scaled_and_masked_sites_stay_monte_carlo(self, pair, handler):
        model, guide = pair
        assert not same_as_monte_carlo(model, guide, model.data(4))
        assert same_as_monte_carlo(handler(model), handler(guide), model.data(4))

    def test_masked_distributions_stay_monte_carlo(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0).mask(x > 0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2, 0.7).mask(x > 1))

        assert same_as_monte_carlo(model, guide, torch.tensor([-1.0, 0.5, 2.0]))

    def test_an_auxiliary_site_keeps_its_density(self):
        """Pyro's formula for a Delta leaves out its ``log_density``, which is what makes this guide a density."""
        model = LinearGaussian()

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
                noise = pyro.sample("noise", noise, infer={"is_auxiliary": True})
                pyro.sample("z", dist.Delta(0.5 * noise, -2 * torch.tensor(0.5).log(), event_dim=1))

        x = model.data(1)
        expected = gaussian_kl((torch.zeros(1, 2), 0.25 * torch.eye(2)), prior_moments(x))
        assert_mean(repeated(ELBO(analytic_kl=True), model, guide, x).kl, expected, detects=0.05)

    def test_without_latent_sites_it_is_zero(self):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

        x = torch.randn(3)
        measured = ELBO(analytic_kl=True)(model, lambda x: None).measure(x)
        assert measured.kl.tolist() == [0.0, 0.0, 0.0]
        torch.testing.assert_close(measured.bound, dist.Normal(0.0, 1.0).log_prob(x))


def same_as_monte_carlo(model, guide, x):
    analytic, sampled = (measure(ELBO(2, analytic_kl), model, guide, x) for analytic_kl in (True, False))
    return torch.allclose(analytic.kl, sampled.kl) and torch.allclose(analytic.bound, sampled.bound)


class TestScale:
    @pytest.mark.parametrize("scale", [0.25, torch.tensor(0.25)], ids=["number", "tensor"])
    def test_a_scaled_site_counts_by_its_scale(self, pair, scale):
        """The KL weighed by one quarter, as in warm-up."""
        model, guide = pair
        x = model.data(4)

        def tempered(program, z):
            def run(x):
                with pyro.plate("data", len(x), dim=-1):
                    with poutine.scale(scale=scale):
                        drawn = z(x)
                    return program(drawn, x)

            return run

        annealed = tempered(model.observe, lambda x: model.latent())
        proposal = tempered(lambda z, x: z, lambda x: pyro.sample("z", guide.proposal(x)))
        measured = measure(ELBO(2), annealed, proposal, x)
        pyro.set_rng_seed(1)
        weights = log_weights((model, guide), x, num_samples=2)
        expected = (weights.log_likelihood + 0.25 * (weights.log_prior - weights.log_proposal)).mean(0)
        torch.testing.assert_close(measured.bound, expected)
        pyro.set_rng_seed(1)
        stock = Trace_ELBO(2, vectorize_particles=True, max_plate_nesting=1).loss(annealed, proposal, x)
        assert measured.loss.item() == pytest.approx(stock, abs=1e-8)


class TestStockPyro:
    """The same value and gradient as Pyro's own, from the same random numbers."""

    @pytest.mark.parametrize(("ours", "theirs"), [(ELBO(4), Trace_ELBO), (ELBO(4, analytic_kl=True), TraceMeanField_ELBO)])
    def test_values_and_gradients(self, pair, ours, theirs):
        model, guide = pair
        x = model.data(6)
        value = measure(ours, model, guide, x).loss
        pyro.set_rng_seed(1)
        stock = theirs(4, vectorize_particles=True, max_plate_nesting=1)(model, guide)
        stock_value = stock(x)
        torch.testing.assert_close(value, stock_value)
        parameters = [*model.parameters(), *guide.parameters()]
        gradients = torch.autograd.grad(value, parameters)
        torch.testing.assert_close(gradients, torch.autograd.grad(stock_value, parameters))
