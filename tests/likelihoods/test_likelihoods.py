"""What every likelihood promises, asked of each class in the room, and what each adds."""

import itertools
import math
from functools import partial

import mpmath
import numpy
import pyro
import pytest
import scipy.stats
import torch
from checks import QUANTILE, members, refused
from pyro.distributions import constraints
from torch.nn.functional import softplus

import pyrovae
import pyrovae.likelihoods
from pyrovae.distributions.discretized_logistic import DiscretizedLogistic as Rounded
from pyrovae.distributions.discretized_logistic import LevelsOfUnitInterval
from pyrovae.distributions.open_beta import OpenInterval
from pyrovae.likelihoods import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
variants = {cls.__name__: cls for cls in members(pyrovae.likelihoods, Likelihood)} | {
    "Normal, shared": partial(Normal, scale=0.4, learned="shared"),
    "Normal, pixel": partial(Normal, scale=0.4, learned="pixel"),
    "DiscretizedLogistic, pixel, 4": partial(DiscretizedLogistic, learned="pixel", levels=4),
    "DiscretizedLogisticMixture, 3": partial(DiscretizedLogisticMixture, components=3, levels=5),
}


def of_one_number(support):
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def grid(support):
    """Values that cover a support of one number, with the measure of each."""
    support = of_one_number(support)
    if isinstance(support, LevelsOfUnitInterval):
        return torch.arange(float(support.levels)) / (support.levels - 1), 1.0
    if isinstance(support, OpenInterval):  # fine at both ends
        u = torch.linspace(-300.0, 36.0, 300_001)
        return u.sigmoid(), u.sigmoid() * (-u).sigmoid() * (u[1] - u[0])
    if support is constraints.boolean:
        return torch.tensor([0.0, 1.0]), 1.0
    if support is constraints.nonnegative_integer:
        return torch.arange(10_000.0), 1.0
    if isinstance(support, constraints.integer_interval):
        return torch.arange(support.lower_bound, torch.as_tensor(support.upper_bound).max() + 1.0), 1.0
    if isinstance(support, constraints.interval):
        width = (support.upper_bound - support.lower_bound) / 100_000
        return support.lower_bound + width * (torch.arange(100_000) + 0.5), width
    assert support is constraints.real, f"say here how {support} is covered"
    u = torch.linspace(-1.0, 1.0, 400_001) * torch.tensor(1e5).asinh()  # fine at 0, coarse in the tails
    return u.sinh(), u.cosh() * (u[1] - u[0])


def edges_of(support):
    """Four values of a support, the outermost among them."""
    support = of_one_number(support)
    if support is constraints.real:
        return torch.tensor([-1e4, 0.0, 1.0, 1e4])
    if support is constraints.nonnegative_integer:
        return torch.tensor([0.0, 1.0, 100.0, 1e5])
    if isinstance(support, LevelsOfUnitInterval):
        return torch.tensor([0.0, 1.0, 2 / (support.levels - 1), 0.0])
    if isinstance(support, OpenInterval):
        return torch.tensor([1e-30, 1 - 1e-15, 0.5, 1e-6])
    top = 1.0 if support is constraints.boolean else float(torch.as_tensor(support.upper_bound).max())
    return torch.tensor([0.0, top, top, 0.0])


@pytest.mark.parametrize("build", variants.values(), ids=variants.keys())
class TestEvery:
    @pytest.mark.parametrize("event_shape", [(3,), (2, 3), (2, 3, 4)])
    @pytest.mark.parametrize("batch", [(), (5,), (6, 5)])
    def test_shapes(self, build, event_shape, batch):
        likelihood = build(event_shape)
        p = likelihood(torch.randn(*batch, *likelihood.param_shape))
        assert p.batch_shape == batch
        assert p.event_shape == event_shape
        x = p.sample()
        assert x.shape == (*batch, *event_shape)
        assert p.log_prob(x).shape == batch
        assert p.log_prob(x).dtype == torch.float64

    def test_pixels_are_independent(self, build):
        likelihood = build((2, 3))
        params = torch.randn(4, *likelihood.param_shape)
        x = likelihood(params).sample()
        by_pixel = torch.zeros(4)
        for i in range(2):
            for j in range(3):
                by_pixel += likelihood_of_one(build)(params[..., [[i]], [[j]]]).log_prob(x[:, [[i]], [[j]]])
        torch.testing.assert_close(likelihood(params).log_prob(x), by_pixel.detach())

    def test_its_density_sums_to_one(self, build):
        likelihood = build((1,))
        params = torch.randn(3, *likelihood.param_shape)
        p = likelihood(params)
        values, measure = grid(p.support)
        total = (p.log_prob(values[:, None, None]).exp() * torch.as_tensor(measure).reshape(-1, 1)).sum(0)
        torch.testing.assert_close(total, torch.ones(3), atol=1e-6, rtol=0)

    def test_its_mean_is_that_of_its_density_and_of_its_draws(self, build):
        likelihood = build((1,))
        p = likelihood(torch.randn(*likelihood.param_shape))
        values, measure = grid(p.support)
        expected = (values * p.log_prob(values[:, None]).exp() * measure).sum()
        torch.testing.assert_close(p.mean[0], expected, atol=1e-6, rtol=0)
        draws = p.sample((20_000,))
        error = draws.std() / len(draws) ** 0.5
        assert abs(draws.mean() - expected) < QUANTILE * error

    @pytest.mark.parametrize("event_shape", [(3,), (2, 3, 4)])
    def test_it_starts_at_a_mean(self, build, event_shape):
        likelihood = build(event_shape)
        p = likelihood(torch.randn(likelihood.param_shape))
        mean = p.mean.clamp(0.002, 0.998) if isinstance(of_one_number(p.support), LevelsOfUnitInterval) else p.mean
        start = likelihood.start(mean)
        assert start.shape == likelihood.param_shape
        torch.testing.assert_close(likelihood(start).mean, mean)

    @pytest.mark.parametrize("mean", [0.0, 1.0])
    def test_it_starts_at_finite_values_where_a_pixel_never_changes(self, build, mean):
        likelihood = build((2, 3))
        start = likelihood.start(torch.full((2, 3), mean))
        assert start.isfinite().all()
        assert likelihood(start).mean.sub(mean).abs().max() < 0.01

    def test_gradients_are_finite_at_the_edges_and_far_out(self, build):
        likelihood = build((4,))
        edges = edges_of(likelihood(torch.randn(likelihood.param_shape)).support)
        for size in (1.0, 30.0):
            params = (size * torch.randn(6, *likelihood.param_shape)).requires_grad_()
            log_p = likelihood(params).log_prob(edges.expand(6, 4))
            gradients = torch.autograd.grad(log_p.sum(), [params, *likelihood.parameters()])
            assert log_p.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in gradients)

    def test_data_off_the_support_are_refused(self, build):
        vae = VAE((4,), 2, likelihood=build, encoder=MLP, decoder=MLP)
        x = vae.model(size=5).detach()
        x[1, 2] = torch.nan
        with refused("'x'", 1, 20, "nan", [1, 2]):
            ELBO()(vae.model, vae.guide)(x)

    def test_a_state_dict_makes_the_same_likelihood(self, build):
        one, other = build((2, 3)), build((2, 3))
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(0.3)
        other.load_state_dict(one.state_dict())
        params = torch.randn(4, *one.param_shape)
        x = one(params).sample()
        assert torch.equal(one(params).log_prob(x), other(params).log_prob(x))

    def test_it_goes_into_a_vae_and_its_parameters_are_trained(self, build):
        vae = VAE((4,), 2, likelihood=build, encoder=MLP, decoder=MLP)
        loss = ELBO(2)(vae.model, vae.guide)
        loss(vae.model(size=5)).backward()
        assert all(parameter.grad.norm() > 0.0 for parameter in vae.parameters())

    def test_it_moves_to_another_type(self, build):
        likelihood = build((3,)).to(torch.float32)
        p = likelihood(torch.randn(2, *likelihood.param_shape, dtype=torch.float32))
        assert p.sample().dtype == p.mean.dtype == torch.float32


def likelihood_of_one(build):
    return build((1, 1))


class TestBernoulli:
    def test_its_density(self):
        logits = 3 * torch.randn(5, 2, 3)
        x = torch.bernoulli(torch.full((5, 2, 3), 0.5))
        expected = scipy.stats.bernoulli(logits.sigmoid().numpy()).logpmf(x.numpy()).sum((1, 2))
        torch.testing.assert_close(Bernoulli((2, 3))(logits).log_prob(x), torch.from_numpy(expected))

    def test_pixels_that_never_change_start_at_one_in_a_thousand(self):
        start = Bernoulli((2,)).start(torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(start.sigmoid(), torch.tensor([0.001, 0.999]))

    def test_its_density_is_finite_far_out(self):
        assert Bernoulli((2,))(torch.tensor([800.0, -800.0])).log_prob(torch.tensor([0.0, 1.0])) == -1600.0


class TestNormal:
    def test_its_density_with_a_fixed_scale(self):
        likelihood = Normal((2, 3), scale=0.25)
        loc, x = torch.randn(2, 5, 2, 3)
        expected = scipy.stats.norm(loc.numpy(), 0.25).logpdf(x.numpy()).sum((1, 2))
        torch.testing.assert_close(likelihood(loc).log_prob(x), torch.from_numpy(expected))
        assert not [*likelihood.parameters()]

    def test_its_density_with_a_shared_scale(self):
        likelihood = Normal((2, 3), scale=0.25, learned="shared")
        loc, x = torch.randn(2, 5, 2, 3)
        [log_scale] = likelihood.parameters()
        for factor in (1.0, 2.0):
            with torch.no_grad():
                log_scale.fill_(math.log(0.25 * factor))
            expected = scipy.stats.norm(loc.numpy(), 0.25 * factor).logpdf(x.numpy()).sum((1, 2))
            torch.testing.assert_close(likelihood(loc).log_prob(x).detach(), torch.from_numpy(expected))

    def test_its_density_with_a_scale_for_each_pixel(self):
        params, x = torch.randn(5, 2, 2, 3), torch.randn(5, 2, 3)
        scale = softplus(params[:, 1]) + 1e-3
        expected = scipy.stats.norm(params[:, 0].numpy(), scale.numpy()).logpdf(x.numpy()).sum((1, 2))
        torch.testing.assert_close(Normal((2, 3), learned="pixel")(params).log_prob(x), torch.from_numpy(expected))

    def test_the_best_shared_scale_is_the_root_mean_square_error(self):
        """Where its gradient is zero: Rybkin et al., equation 5."""
        likelihood = Normal((2, 3), learned="shared")
        loc, x = torch.randn(2, 50, 2, 3)
        with torch.no_grad():
            likelihood.log_scale.copy_((x - loc).square().mean().sqrt().log())
        (gradient,) = torch.autograd.grad(likelihood(loc).log_prob(x).sum(), likelihood.log_scale)
        assert abs(gradient) < 1e-10

    @pytest.mark.parametrize("learned", ["fixed", "shared", "pixel"])
    @pytest.mark.parametrize("scale", [0.01, 0.4, 1.0, 100.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_it_starts_at_the_scale(self, learned, scale, dtype):
        torch.set_default_dtype(dtype)
        likelihood = Normal((2, 3), scale=scale, learned=learned)
        start = likelihood.start(torch.randn(2, 3))
        torch.testing.assert_close(likelihood(start).stddev, torch.full((2, 3), scale), rtol=1e-4, atol=0)

    def test_the_scale_of_a_pixel_has_a_lower_bound(self):
        params = torch.stack([torch.zeros(2, 3), torch.full((2, 3), -1000.0)])
        torch.testing.assert_close(Normal((2, 3), learned="pixel")(params).stddev, torch.full((2, 3), 1e-3))

    def test_the_scale_is_saved(self):
        one, other = Normal((3,), scale=0.1), Normal((3,), scale=0.7)
        other.load_state_dict(one.state_dict())
        torch.testing.assert_close(other(torch.zeros(3)).stddev, torch.full((3,), 0.1))

    @pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
    def test_a_scale_that_is_none_is_refused(self, scale):
        with refused("scale", scale):
            Normal((3,), scale=scale)

    def test_an_unknown_way_to_learn_is_refused(self):
        with refused("learned", "'all'", "'fixed'", "'shared'", "'pixel'"):
            Normal((3,), learned="all")

    def test_missing_pixels_are_named(self):
        vae = VAE((3,), 2, likelihood=Normal, encoder=MLP, decoder=MLP)
        x = torch.zeros(4, 3)
        x[2, 1] = torch.nan
        with refused("'x'", 1, 12, "nan", [2, 1]):
            ELBO()(vae.model, vae.guide)(x)
        assert pyro.get_param_store().keys() == set()


class TestHeavierTails:
    @pytest.mark.parametrize("learned", ["fixed", "shared"])
    def test_the_density_of_laplace(self, learned):
        loc, x = torch.randn(2, 5, 2, 3)
        expected = scipy.stats.laplace(loc.numpy(), 0.25).logpdf(x.numpy()).sum((1, 2))
        found = Laplace((2, 3), scale=0.25, learned=learned)(loc).log_prob(x).detach()
        torch.testing.assert_close(found, torch.from_numpy(expected))

    @pytest.mark.parametrize("df", [1.5, 5.0])
    def test_the_density_of_student_t(self, df):
        params, x = torch.randn(5, 2, 2, 3), 5 * torch.randn(5, 2, 3)
        scale = softplus(params[:, 1]) + 1e-3
        expected = scipy.stats.t(df, params[:, 0].numpy(), scale.numpy()).logpdf(x.numpy()).sum((1, 2))
        found = StudentT((2, 3), learned="pixel", df=df)(params).log_prob(x)
        torch.testing.assert_close(found, torch.from_numpy(expected))

    @pytest.mark.parametrize("df", [1.0, -1.0, math.inf, math.nan])
    def test_degrees_of_freedom_without_a_mean_are_refused(self, df):
        with refused("df", df, 1):
            StudentT((3,), df=df)


class TestCounts:
    def test_the_density_of_poisson(self):
        log_rate, x = torch.randn(5, 2, 3), torch.arange(30.0).reshape(5, 2, 3)
        expected = scipy.stats.poisson(log_rate.exp().numpy()).logpmf(x.numpy()).sum((1, 2))
        torch.testing.assert_close(Poisson((2, 3))(log_rate).log_prob(x), torch.from_numpy(expected))

    def test_the_density_of_the_negative_binomial(self):
        likelihood = NegativeBinomial((2, 3), inverse_dispersion=2.5)
        with torch.no_grad():
            likelihood.log_inverse_dispersion.add_(0.3 * torch.randn(2, 3))
        log_mean, x = torch.randn(5, 2, 3), torch.arange(30.0).reshape(5, 2, 3)
        theta, mean = likelihood.log_inverse_dispersion.exp().detach().numpy(), log_mean.exp().numpy()
        counts = scipy.stats.nbinom(theta, theta / (theta + mean))
        p = likelihood(log_mean)
        torch.testing.assert_close(p.log_prob(x).detach(), torch.from_numpy(counts.logpmf(x.numpy()).sum((1, 2))))
        torch.testing.assert_close(p.variance.detach(), torch.from_numpy(mean + mean**2 / theta))

    def test_the_density_of_the_binomial(self):
        logits, x = torch.randn(5, 2, 3), torch.arange(30.0).reshape(5, 2, 3)
        expected = scipy.stats.binom(29, logits.sigmoid().numpy()).logpmf(x.numpy()).sum((1, 2))
        torch.testing.assert_close(Binomial((2, 3), total_count=29)(logits).log_prob(x), torch.from_numpy(expected))

    @pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
    def test_a_dispersion_that_is_none_is_refused(self, value):
        with refused("inverse_dispersion", value):
            NegativeBinomial((3,), inverse_dispersion=value)

    def test_the_support_is_told_in_short(self):
        vae = VAE((3,), 2, likelihood=Binomial, encoder=MLP, decoder=MLP)
        with refused("Binomial", "IntegerInterval(upper_bound=255)", 256):
            ELBO()(vae.model, vae.guide)(torch.full((2, 3), 256.0))

    def test_no_trials_are_refused(self):
        with refused("total_count", 0, 1):
            Binomial((3,), total_count=0)

    def test_the_density_of_levels(self):
        likelihood = Categorical((2, 3), levels=30)
        params, x = torch.randn(5, 30, 2, 3), torch.arange(30.0).reshape(5, 2, 3)
        chosen = torch.nn.functional.one_hot(x.long(), 30).movedim(-1, 1)
        expected = (params.softmax(1).log() * chosen).sum((1, 2, 3))
        torch.testing.assert_close(likelihood(params).log_prob(x), expected)

    def test_less_than_two_levels_are_refused(self):
        with refused("levels", 1, 2):
            Categorical((3,), levels=1)


class TestContinuousBernoulli:
    logits = torch.tensor([-150.0, -30.0, -3.0, -0.31, -0.29, -0.051, -0.049, -1e-3, 0.0, 1e-8, 0.04, 0.06, 0.2, 5.0, 90.0])

    @pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
    def test_its_normaliser_and_its_gradient_are_right_for_all_logits(self, dtype, accuracy):
        logits = self.logits.to(dtype).requires_grad_()
        log_p = ContinuousBernoulli(logits.shape)(logits).base_dist.log_prob(torch.full(logits.shape, 0.25, dtype=dtype))
        (gradient,) = torch.autograd.grad(log_p.sum(), logits)
        with mpmath.workdps(60):
            value = [float(_log_p(mpmath.mpf(eta), 0.25)) for eta in logits.tolist()]
            slope = [float(mpmath.diff(lambda e: _log_p(e, 0.25), mpmath.mpf(eta))) for eta in logits.tolist()]
        torch.testing.assert_close(log_p.double(), torch.tensor(value), rtol=accuracy, atol=accuracy)
        torch.testing.assert_close(gradient.double(), torch.tensor(slope), rtol=accuracy, atol=accuracy)
        mean = 0.25 - torch.tensor(slope)
        found = ContinuousBernoulli(logits.shape)(logits).mean.double()
        torch.testing.assert_close(found, mean, rtol=accuracy, atol=accuracy)

    @pytest.mark.parametrize("eta", [-40.0, -2.0, 0.0, 1e-3, 0.5, 60.0])
    def test_its_draws(self, eta):
        draws = ContinuousBernoulli((1,))(torch.tensor([eta])).sample((4000,)).flatten().numpy()
        uniform = numpy.expm1(eta * draws) / numpy.expm1(eta) if eta else draws
        assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-5

    def test_it_is_torchs_where_that_is_right(self):
        logits, x = torch.randn(5, 3), torch.rand(5, 3)
        expected = torch.distributions.ContinuousBernoulli(logits=logits).log_prob(x).sum(-1)
        torch.testing.assert_close(ContinuousBernoulli((3,))(logits).log_prob(x), expected)

    def test_grey_values_beyond_white_are_refused(self):
        vae = VAE((3,), 2, likelihood=ContinuousBernoulli, encoder=MLP, decoder=MLP)
        with refused(6, "ContinuousBernoulli", 255):
            ELBO()(vae.model, vae.guide)(torch.full((2, 3), 255.0))


def _log_p(eta, x):
    """Loaiza-Ganem & Cunningham, equation 4, by its natural parameter, in as many digits as mpmath is asked for."""
    return eta * x - (mpmath.log(mpmath.expm1(eta) / eta) if eta else 0)


class TestLevels:
    """A rounded logistic variable, alone and in a mixture."""

    @property
    def levels(self):
        return torch.arange(256.0) / 255

    def masses(self, loc, scale):
        """The exact masses of all levels, from the distribution function in 250 digits."""
        with mpmath.workdps(250):
            edges = [(2 * mpmath.mpf(k) + 1) / 510 for k in range(255)]
            below = [0, *(1 / (1 + mpmath.exp(-(edge - loc) / scale)) for edge in edges), 1]
            return [upper - lower for lower, upper in itertools.pairwise(below)]

    @pytest.mark.parametrize("scale", [0.002, 0.1, 5.0])
    @pytest.mark.parametrize("loc", [-3.0, 0.3, 1.0])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
    def test_the_mass_of_every_level(self, loc, scale, dtype, tolerance):
        expected = torch.tensor([float(mpmath.log(mass)) for mass in self.masses(loc, scale)])
        torch.set_default_dtype(dtype)
        likelihood = DiscretizedLogistic((256,), scale=scale, learned="fixed")
        found = likelihood(torch.full((256,), loc, dtype=dtype)).base_dist.log_prob(self.levels.to(dtype))
        assert ((found.double() - expected).abs() <= tolerance * (1 + expected.abs())).all()

    def test_a_mixture_is_the_sum_of_its_components(self):
        likelihood = DiscretizedLogisticMixture((2, 3), components=4)
        params, x = torch.randn(5, 3, 4, 2, 3), self.levels[torch.randint(256, (5, 2, 3))]
        logits, loc, raw = params.unbind(1)
        each = Rounded(loc, softplus(raw) + 1e-3).log_prob(x[:, None])
        expected = (logits.log_softmax(1) + each).logsumexp(1).sum((1, 2))
        torch.testing.assert_close(likelihood(params).log_prob(x), expected)

    @pytest.mark.parametrize("build", [DiscretizedLogistic, DiscretizedLogisticMixture])
    def test_draws_have_the_masses_of_their_levels(self, build):
        """A chi-squared test at 1e-5."""
        likelihood = build((1,), levels=6)
        p = likelihood(0.3 * torch.randn(likelihood.param_shape))
        levels = torch.arange(6.0) / 5
        draws = p.sample((20_000,))[:, 0]
        counts = (draws[:, None] == levels).sum(0)
        assert counts.sum() == 20_000
        masses = p.log_prob(levels[:, None]).exp().detach()
        kept = masses * 20_000 > 5
        assert kept.sum() > 2
        expected = torch.cat([masses[kept], masses[~kept].sum()[None]]) * 20_000
        found = torch.cat([counts[kept], counts[~kept].sum()[None]])
        statistic = ((found - expected).square() / expected.clamp_min(1e-9))[expected > 1e-3].sum()
        assert statistic < scipy.stats.chi2(int(kept.sum())).isf(1e-5)

    @pytest.mark.parametrize("build", [DiscretizedLogistic, DiscretizedLogisticMixture])
    def test_its_variance_is_that_of_its_masses(self, build):
        likelihood = build((1,), levels=6)
        p = likelihood(0.3 * torch.randn(likelihood.param_shape))
        levels = torch.arange(6.0) / 5
        masses = p.log_prob(levels[:, None]).exp()
        torch.testing.assert_close(p.variance[0], (masses * (levels - p.mean).square()).sum())

    def test_pictures_of_bytes_are_levels_and_others_are_not(self):
        vae = VAE((2, 3), 2, likelihood=DiscretizedLogistic, encoder=MLP, decoder=MLP).float()
        bytes_read = torch.from_numpy(numpy.arange(6, dtype=numpy.uint8).reshape(1, 2, 3) * 51).float().div_(255)
        assert ELBO()(vae.model, vae.guide)(bytes_read).isfinite()
        bytes_read[0, 1, 1] = 0.5
        with refused(1, 6, "k / 255", "k = 0, ..., 255"):
            ELBO()(vae.model, vae.guide)(bytes_read)

    @pytest.mark.parametrize("build", [DiscretizedLogistic, DiscretizedLogisticMixture])
    def test_log_likelihoods_can_be_told_in_bits(self, build):
        vae = VAE((2, 3), 2, likelihood=build, encoder=MLP, decoder=MLP)
        weights = pyrovae.log_weights(vae, vae.model(size=4).detach())
        assert weights.discrete_dimensions == 6

    @pytest.mark.parametrize("build", [DiscretizedLogistic, DiscretizedLogisticMixture])
    def test_less_than_two_levels_are_refused(self, build):
        with refused("levels", 1, 2):
            build((3,), levels=1)

    def test_no_component_and_no_scale_are_refused(self):
        with refused("components", 0, 1):
            DiscretizedLogisticMixture((3,), components=0)
        with refused("scale", "0.0", 0.001):
            DiscretizedLogisticMixture((3,), scale=0.0)


class TestBeta:
    def test_its_density(self):
        params, x = torch.randn(5, 2, 2, 3), torch.rand(5, 2, 3)
        mean, concentration = params[:, 0].sigmoid(), 7.0 / math.log(2.0) * softplus(params[:, 1]) + 1e-3
        density = scipy.stats.beta((mean * concentration).numpy(), ((1 - mean) * concentration).numpy())
        found = Beta((2, 3), concentration=7.0)(params)
        torch.testing.assert_close(found.log_prob(x), torch.from_numpy(density.logpdf(x.numpy()).sum((1, 2))))
        torch.testing.assert_close(found.mean, mean)

    @pytest.mark.parametrize("edge", [0.0, 1.0])
    def test_the_ends_are_refused(self, edge):
        vae = VAE((3,), 2, likelihood=Beta, encoder=MLP, decoder=MLP)
        x = torch.full((4, 3), 0.5)
        x[2, 1] = edge
        with refused(1, 12, "OpenBeta", 0, 1, [2, 1]):
            ELBO()(vae.model, vae.guide)(x)

    @pytest.mark.parametrize("concentration", [0.0, math.inf, math.nan])
    def test_a_concentration_that_is_none_is_refused(self, concentration):
        with refused("concentration", concentration):
            Beta((3,), concentration=concentration)


class TestZeroInflation:
    def test_its_density(self):
        likelihood = ZeroInflatedNegativeBinomial((2, 3), inverse_dispersion=2.5)
        params, x = torch.randn(5, 2, 2, 3), torch.arange(30.0).remainder(7).reshape(5, 2, 3)
        theta, mean, gate = 2.5, params[:, 0].exp().numpy(), params[:, 1].sigmoid().numpy()
        mass = (1 - gate) * scipy.stats.nbinom(theta, theta / (theta + mean)).pmf(x.numpy()) + gate * (x == 0).numpy()
        p = likelihood(params)
        torch.testing.assert_close(p.log_prob(x).detach(), torch.from_numpy(numpy.log(mass).sum((1, 2))))
        variance = (1 - gate) * (mean + mean**2 / theta + mean**2) - ((1 - gate) * mean) ** 2
        torch.testing.assert_close(p.variance.detach(), torch.from_numpy(variance))

    def test_it_stays_finite_where_zeros_are_impossible_and_its_mean_was_asked_for(self):
        likelihood = ZeroInflatedNegativeBinomial((1,), inverse_dispersion=1e4)
        p = likelihood(torch.tensor([[9.0], [-900.0]]))
        assert p.mean.isfinite().all()
        assert p.sample().isfinite().all()
        assert p.log_prob(torch.zeros(1)) == -900.0

    def test_the_share_of_zeros(self):
        """A z-test at 1e-5."""
        likelihood = ZeroInflatedNegativeBinomial((1,))
        p = likelihood(torch.tensor([[2.0], [-0.5]]))
        share = p.log_prob(torch.zeros(1)).exp().item()
        zeros = (p.sample((50_000,)) == 0).double()
        assert abs(zeros.mean() - share) < QUANTILE * zeros.std() / 50_000**0.5


@pytest.mark.parametrize("build", [NegativeBinomial, ZeroInflatedNegativeBinomial])
class TestLibrary:
    def test_the_means_share_the_total_count(self, build):
        likelihood = build((2, 3), library=True)
        params = torch.randn(7, 5, *likelihood.param_shape)
        context = torch.cat([torch.randn(5, 2), torch.tensor([[10.0], [20.0], [30.0], [40.0], [50.0]]).log()], 1)
        log_mean = params if build is NegativeBinomial else params[..., 0, :, :]
        gate = 0.0 if build is NegativeBinomial else params[..., 1, :, :].sigmoid()
        totals = (likelihood.given(params, context).mean / (1 - gate)).sum((-1, -2))
        torch.testing.assert_close(totals.detach(), torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0]).expand(7, 5))
        shares = log_mean.flatten(-2).softmax(-1)[..., 0]
        found = (likelihood.given(params, context).mean / (1 - gate))[..., 0, 0]
        torch.testing.assert_close(found.detach(), shares * context[:, -1].exp())

    def test_it_is_trained_with_the_total_count_as_context(self, build):
        vae = VAE((4,), 2, likelihood=partial(build, library=True), encoder=MLP, decoder=MLP, context_shape=(1,))
        x = torch.poisson(10 * torch.rand(20, 4)) + 1
        data = {"x": x, "c": x.sum(1, keepdim=True).log()}
        history = pyrovae.fit(vae, data, epochs=30, batch_size=10, progress=False)
        assert history.metrics[-1]["train_bound"] > history.metrics[0]["train_bound"]

    def test_it_needs_a_context(self, build):
        vae = VAE((4,), 2, likelihood=partial(build, library=True), encoder=MLP, decoder=MLP)
        with refused(build.__name__, "library=True", "c=x.sum(1, keepdim=True).log()"):
            ELBO()(vae.model, vae.guide)(torch.ones(3, 4))
