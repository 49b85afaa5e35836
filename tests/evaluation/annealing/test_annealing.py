"""Annealed chains against programs whose log p(x) is known, forwards and backwards."""

import math
from functools import partial
from itertools import product
from types import MappingProxyType

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from checks import assert_mean, slow_but
from programs import GaussianGuide, LinearGaussian, WithPixelPlate, drawing, functions
from pyro.contrib.zuko import ZukoToPyro
from torch import nn

import pyrovae
from pyrovae.distributions.flow import FlowDistribution, zuko
from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.validation import find_plates
from pyrovae.errors import InputError
from pyrovae.evaluation import AnnealedLikelihood, Bidirectional, annealed_importance_sampling, bidirectional
from pyrovae.evaluation.annealing.adaptation import plan, sigmoid_schedule
from pyrovae.evaluation.annealing.annealed_importance_sampling import Annealing
from pyrovae.evaluation.annealing.hmc import Kernel, transition
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.priors import UniformSphere
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
STARTS = ("prior", "guide")
SCHEDULES = ("sigmoid", "linear", "adaptive")
WAYS = (("guide", "sigmoid"), ("prior", "linear"), ("guide", "adaptive"))
"""Pairs of the two in which each schedule and each start is met."""
starts = pytest.mark.parametrize("start", STARTS)
one_start = pytest.mark.parametrize("start", slow_but(lambda start: start == "guide", STARTS))
schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def pair(structure=LinearGaussian, **sizes):
    model = structure(**sizes)
    return model, GaussianGuide(model, shift=0.5, widen=1.5)


def path_of(model, guide, x, chains, start="prior"):
    """The path of all data at once."""
    settings = Annealing(chains, 1, start, "sigmoid", 1, chains * len(x))
    with settings.paths(model, guide, x, 0, None, False, False) as (paths, _):
        return next(paths)[0]


class Scales(nn.Module):
    """A positive latent in an inner plate of two: a Gamma prior, normal data, and a log-normal guide."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 2, dim=-2):
            s = pyro.sample("s", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, s), obs=x.T)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 2, dim=-2):
            pyro.sample("s", dist.LogNormal(x.T.abs().log1p(), 0.8))

    def log_p(self, x):
        s = torch.linspace(-12.0, 5.0, 20_001).exp()
        joint = dist.Gamma(2.0, 1.0).log_prob(s) + dist.Normal(0.0, s).log_prob(x[..., None]) + s.log()
        return (joint.logsumexp(-1) + math.log(17.0 / 20_000)).sum(-1)


def at_a_point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(torch.zeros(len(x), 2), event_dim=1))


def with_another_site(kind, x):
    """A guide with a site that is no latent of the model, and another density therefore."""
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        if kind == "auxiliary":
            pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        elif kind == "factor":
            pyro.factor("a", torch.ones(len(x)), has_rsample=False)
        elif kind == "observed":
            pyro.sample("a", dist.Normal(0.0, 1.0), obs=x[:, 0], infer={"is_auxiliary": True})


def scalar(prior, proposal, likelihood=lambda z: dist.Normal(z, 1.0)):
    """One latent ``z`` a datum, of whatever shape, from a prior that knows no data, and its guide."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", proposal)

    return model, guide


class Stateless(dist.TorchDistribution):
    """A distribution that keeps its support for itself."""

    arg_constraints = MappingProxyType({})

    def __init__(self, base):
        self.base_dist = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def sample(self, sample_shape=()):
        return self.base_dist.sample(sample_shape)

    def log_prob(self, value):
        return self.base_dist.log_prob(value)

    def expand(self, batch_shape, _instance=None):
        return Stateless(self.base_dist.expand(batch_shape))


class TestLatents:
    def test_they_are_packed_and_unpacked(self):
        programs = Scales()
        x = torch.randn(3, 2)
        path = path_of(programs.model, programs.guide, x, 4)
        u = torch.randn(4, 3, 2)
        values, log_volume = path.latents.unpack(u)
        assert values["s"].shape == (4, 2, 3)
        torch.testing.assert_close(values["s"], u.exp().transpose(1, 2))
        torch.testing.assert_close(log_volume, u.sum(-1))
        torch.testing.assert_close(path.latents.pack(values), u)

    @starts
    @pytest.mark.parametrize("structure", [LinearGaussian, WithPixelPlate])
    def test_the_ends_of_the_path_are_the_densities(self, start, structure):
        model, guide = pair(structure)
        x = model.data(3)
        path = path_of(model, guide, x, 4, start)
        state = path.begin(path.start())
        fixed = {"z": path.latents.unpack(state.u)[0]["z"]}
        weights = log_weights((model, drawing(guide, **fixed)), x, num_samples=4, plates=find_plates((model, guide), x))
        torch.testing.assert_close(state.log_f0, weights.log_prior if start == "prior" else weights.log_proposal)
        torch.testing.assert_close(state.log_f1, weights.log_joint)
        moved = 1e-6 * torch.randn_like(state.u)
        other = path.at(state.u + moved, state.u)
        for change, slope in (
            (other.log_f0 - state.log_f0, state.slope_0),
            (other.log_f1 - state.log_f1, state.slope_1),
        ):
            torch.testing.assert_close(change, (slope * moved).sum(-1), rtol=1e-3, atol=1e-9)


class TestTransition:
    @pytest.mark.parametrize("step_size", [0.3, 1.2])
    def test_it_leaves_the_density_as_it_is(self, step_size):
        """Exact draws of the posterior stay that, whatever part of the proposals is accepted: tests at 1e-5."""
        model, _ = pair()
        x = model.data(1)
        path = path_of(model, GaussianGuide(model), x, 4000, "guide")
        state = path.begin(path.start())
        kernel = Kernel(torch.tensor([step_size]), torch.tensor([[0.3, 1.0]]))
        for _ in range(10):
            state, accepted, _ = transition(path, state, torch.ones(1), kernel, 5)
        share = accepted.double().mean().item()
        assert 0.1 < share < 0.9 if step_size > 1.0 else share > 0.9
        mean, covariance = model.posterior(x)
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (state.u[:, 0] - mean).T, upper=False)
        for row in white:
            assert scipy.stats.kstest(row.numpy(), "norm").pvalue > 1e-5
        assert scipy.stats.spearmanr(*white.numpy()).pvalue > 1e-5

    def test_chains_forget_where_they_began(self):
        model, _ = pair()
        x = model.data(1)
        path = path_of(model, GaussianGuide(model, shift=3.0), x, 4000, "guide")
        state = path.begin(path.start())
        for _ in range(60):
            state, _, _ = transition(path, state, torch.ones(1), Kernel(torch.tensor([0.4]), torch.ones(1, 2)), 8)
        mean, _ = model.posterior(x)
        for column, expected in zip(state.u[:, 0].T, mean[0], strict=True):
            assert_mean(column, expected, detects=0.2)

    def test_pilot_chains_find_step_sizes(self):
        model, guide = pair(data_dim=13, latent_dim=10)
        path = path_of(model, guide, model.data(5), 50)
        made = plan(path, 50, "sigmoid", 10)
        state = path.begin(path.start())
        shares = []
        for t in range(1, 50):
            state, accepted, _ = transition(path, state, made.betas[t], made.kernel(t), 10)
            shares.append(accepted.double().mean())
        assert 0.5 < torch.stack(shares).mean() < 0.9

    def test_pilot_chains_find_how_wide_the_posterior_is(self):
        """In each dimension, of latents whose scales differ by a factor of ten."""
        model, guide = pair(data_dim=3, latent_dim=2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[8.0, 0.0], [0.0, 0.1], [0.0, 0.1]]))
        x = model.data(3)
        made = plan(path_of(model, guide, x, 200), 250, "sigmoid", 10)
        _, covariance = model.posterior(x)
        found = made.kernel(250).scale / covariance.diagonal().sqrt()
        assert ((found > 0.6) & (found < 1.6)).all()


class TestSchedules:
    @schedules
    def test_they_go_from_0_to_1(self, schedule):
        model, guide = pair()
        betas = plan(path_of(model, guide, model.data(3), 8), 40, schedule, 3).betas
        assert betas.shape == (41, 3)
        assert torch.equal(betas[[0, -1]], torch.tensor([0.0, 1.0])[:, None].expand(2, 3).double())
        assert (betas.diff(dim=0) > 0.0).all()

    def test_the_sigmoid_is_dense_at_both_ends(self):
        betas = sigmoid_schedule(100, torch.device("cpu"))
        assert betas.diff().argmax() in (49, 50)
        torch.testing.assert_close(betas, 1.0 - betas.flip(0))

    def test_the_adaptive_one_costs_the_same_at_each_temperature(self):
        """The conditional effective sample size is that of the variance of the log ratio, which is known here."""
        model, guide = pair()
        x = model.data(2)
        path = path_of(model, guide, x, 500)
        made = plan(path, 60, "adaptive", 10)
        state = path.begin(path.start())
        costs = []
        for t in range(1, 61):
            ratio = (made.betas[t] - made.betas[t - 1]) * (state.log_f1 - state.log_f0)
            costs.append(ratio.std(0))
            state, _, _ = transition(path, state, made.betas[t], made.kernel(t), 10)
        costs = torch.stack(costs)[5:]
        assert (costs.max(0).values / costs.median(0).values < 1.6).all()
        assert (costs.min(0).values / costs.median(0).values > 0.5).all()


class TestForwards:
    @pytest.mark.parametrize(("start", "schedule"), slow_but(lambda *way: way in WAYS, product(STARTS, SCHEDULES)))
    def test_the_mean_weight_is_p(self, start, schedule):
        """At few temperatures, where single weights are far off."""
        model, guide = pair()
        x = model.data(1).expand(1000, 3)
        found = annealed_importance_sampling((model, guide), x, 8, 8, start=start, schedule=schedule, steps=3)
        assert found.log_weights.shape == (8, 1000)
        assert_mean(torch.from_numpy(np.exp(found.log_weights)) / model.log_p(x).exp(), 1.0, detects=0.3)
        assert found.log_weights.std() > 0.1

    def test_a_single_temperature_is_importance_sampling(self):
        model, guide = pair()
        x = model.data(3)
        found = annealed_importance_sampling((model, guide), x, 500, 1, start="guide")
        weights = log_weights((model, guide), x, num_samples=500).total
        for ours, plain in zip(found.log_weights.T, weights.T.detach().numpy(), strict=True):
            assert scipy.stats.ks_2samp(ours, plain).pvalue > 1e-5

    @pytest.mark.parametrize(("latent_dim", "temperatures"), [(2, 100), pytest.param(10, 200, marks=pytest.mark.slow)])
    def test_its_interval_covers(self, latent_dim, temperatures):
        """Of 400 data, so that fewer than 93% are an interval of less than 95% with probability 0.95."""
        model, guide = pair(data_dim=latent_dim + 3, latent_dim=latent_dim)
        x = model.data(400)
        found = annealed_importance_sampling((model, guide), x, 16, temperatures, start="guide", steps=5)
        low, high = found.interval()
        exact = model.log_p(x).numpy()
        inside = ((low <= exact) & (exact <= high)).sum()
        assert scipy.stats.binom(400, 0.95).ppf(1e-5) <= inside
        assert found.standard_error.max() < 1.0

    @one_start
    def test_constrained_latents(self, start):
        programs = Scales()
        x = 2 * torch.randn(300, 2)
        found = annealed_importance_sampling(programs, x, 16, 60, start=start, steps=3)
        difference = torch.from_numpy(found.log_p) - programs.log_p(x)
        assert_mean(difference.exp(), 1.0, detects=0.1)
        assert difference.abs().max() < 1.0

    def test_functions_and_other_structures(self):
        model, guide = pair()
        x = model.data(50)
        seen = annealed_importance_sampling((model, guide), x, 4, 20, steps=3).log_p
        for programs in (functions(model, guide), (WithPixelPlate(), guide)):
            np.testing.assert_allclose(annealed_importance_sampling(programs, x, 4, 20, steps=3).log_p, seen)

    @starts
    def test_recorded_is_eager(self, start, unfused):
        self.assert_compiled_is_eager(start)

    def test_compiled_is_eager(self):
        self.assert_compiled_is_eager("guide")

    def assert_compiled_is_eager(self, start):
        model, guide = pair()
        x = model.data(5)
        run = partial(annealed_importance_sampling, (model, guide), x, 4, 10, start=start, steps=3, max_rows=12)
        np.testing.assert_allclose(run(compile=True).log_weights, run(compile=False).log_weights, rtol=1e-6)

    @pytest.mark.cuda
    @starts
    def test_chains_in_a_cuda_graph_are_eager_chains(self, start):
        vae = VAE((4, 4), latent_dim=2).cuda()
        x = torch.bernoulli(torch.full((6, 4, 4), 0.3)).cuda()
        run = partial(annealed_importance_sampling, vae, x, 8, 30, start=start, steps=3)
        eager, graph = run(compile=False), run(compile=True)
        np.testing.assert_allclose(graph.log_weights, eager.log_weights, rtol=1e-6)
        np.testing.assert_array_equal(graph.log_weights, run(compile=True).log_weights)

    @pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
    def test_contexts_reach_the_programs(self):
        network = partial(MLP, hidden=(8,))
        vae = VAE((3,), 2, likelihood=Normal, context_shape=(2,), encoder=network, decoder=network)
        x, c = torch.randn(6, 3), torch.randn(6, 2)
        found = annealed_importance_sampling(vae, {"x": x, "c": c}, 16, 200, steps=4)
        plain = pyrovae.log_likelihood(vae, {"x": x, "c": c}, 20_000, proposal="mixture")
        error = np.hypot(found.standard_error, plain.standard_error)
        assert (abs(found.log_p - plain.log_p) < 4.42 * error + 0.02).all()
        assert error.max() < 0.3

    def test_the_same_seed_gives_the_same_and_leaves_others_alone(self):
        model, guide = pair()
        x = model.data(4)
        state = torch.get_rng_state()
        one, other = (annealed_importance_sampling((model, guide), x, 3, 10, steps=2, max_rows=6, seed=2) for _ in range(2))
        assert torch.equal(state, torch.get_rng_state())
        assert np.array_equal(one.log_weights, other.log_weights)
        assert not np.array_equal(
            one.log_weights, annealed_importance_sampling((model, guide), x, 3, 10, steps=2, max_rows=6, seed=3).log_weights
        )
        assert model.weight.grad is None

    def test_the_table(self):
        model, guide = pair()
        said = str(annealed_importance_sampling((model, guide), model.data(4), 3, 10, steps=1))
        assert "log p(x) of 4 data by 3 annealed chains each, 10 temperatures, in nats" in said
        assert "effective sample size" in said


def log_mean(values):
    """Of the exponentials, along the first axis."""
    return values.logsumexp(0) - math.log(len(values))


LINE = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)


def by_quadrature(log_prior, log_likelihood, x, points=LINE):
    """Log p(x) of scalar latents at points that lie alike, shape ``(N,)``, densities being of points and of points and x."""
    joint = log_prior(points)[:, None] + log_likelihood(points[:, None], x)
    return joint.logsumexp(0) + (points[1] - points[0]).log()


def require_unbiased(programs, x, log_p, start, temperatures=10, chains=8, times=250, detects=0.25, **settings):
    """Mean weights of many chains of each datum are p(x), at few temperatures, where single ones are off."""
    many = x.repeat(times, *[1] * (x.dim() - 1))
    found = annealed_importance_sampling(programs, many, chains, temperatures, start=start, steps=3, **settings)
    weights = torch.from_numpy(np.exp(found.log_weights)) / log_p.exp().repeat(times)
    assert_mean(weights.mean(0), 1.0, detects=detects)
    assert found.log_weights.std() > 0.01
    assert found.acceptance.mean() > 0.3
    return found


class TestAnyLatent:
    """At z-tests of 1e-5, which see a volume that is not counted, or counted twice."""

    @one_start
    @pytest.mark.parametrize("kind", ["of Pyro", "of ours"])
    def test_a_flow_as_prior(self, start, kind):
        flow = zuko.flows.MAF(1, transforms=1)
        with torch.no_grad():
            for value in flow.parameters():
                value.mul_(1.5)
        made = ZukoToPyro if kind == "of Pyro" else FlowDistribution
        x = torch.tensor([-0.5, 0.3, 1.5])

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", made(flow()))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[:, None])

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x[:, None], 1.0).to_event(1))

        log_p = by_quadrature(lambda z: flow().log_prob(z[:, None]), lambda z, x: dist.Normal(z, 1.0).log_prob(x), x)
        require_unbiased((model, guide), x, log_p.detach(), start)

    def test_a_support_that_only_the_guide_states(self):
        x = torch.tensor([0.5, 2.0])
        programs = scalar(Stateless(dist.Gamma(2.0, 1.0)), dist.LogNormal(0.0, 1.0))
        log_p = by_quadrature(
            lambda u: dist.Gamma(2.0, 1.0).log_prob(u.exp()) + u, lambda u, x: dist.Normal(u.exp(), 1.0).log_prob(x), x
        )
        require_unbiased(programs, x, log_p, "prior")

    @one_start
    def test_cholesky_factors_of_correlations(self, start):
        """Of two dimensions, whose density is that of their correlation; the data are pairs."""
        prior, proposal = dist.LKJCholesky(2, 1.5), dist.LKJCholesky(2, 1.0)
        programs = scalar(prior, proposal, lambda factor: dist.MultivariateNormal(torch.zeros(2), scale_tril=factor))
        x = torch.tensor([[1.0, 1.5], [0.4, -0.7]])
        r = LINE.tanh()
        factors = torch.stack([torch.ones_like(r), torch.zeros_like(r), r, (1 - r**2).sqrt()], -1).reshape(-1, 2, 2)
        factors = factors.clamp(min=-1.0 + 1e-12)
        inner = r.abs() < 1.0 - 1e-9
        normal = dist.MultivariateNormal(torch.zeros(2), scale_tril=factors[inner][:, None])
        joint = (prior.log_prob(factors[inner]) + (1 - r[inner] ** 2).log())[:, None] + normal.log_prob(x)
        log_p = joint.logsumexp(0) + (LINE[1] - LINE[0]).log()
        require_unbiased(programs, x, log_p, start)

    @one_start
    def test_points_of_a_simplex(self, start):
        """Counts of which a Dirichlet's probabilities are hidden: the Dirichlet-multinomial distribution."""
        a = torch.tensor([1.5, 0.8, 2.0])
        counts = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 2.0]])
        programs = scalar(
            dist.Dirichlet(a),
            dist.Dirichlet(a + 0.5),
            lambda p: dist.Multinomial(probs=p, total_count=4, validate_args=False),
        )
        log_p = dist.DirichletMultinomial(a, 4).log_prob(counts)
        require_unbiased(programs, counts, log_p, start)

    @one_start
    @pytest.mark.filterwarnings(
        "ignore:Singular sample detected"
    )  # torch, of a Wishart's draws that rounding made asymmetric
    def test_positive_definite_matrices(self, start):
        r"""A precision from a Wishart distribution, and data normal with it: :math:`x` is Student's t, in two dimensions."""
        scale, df = torch.tensor([[0.5, 0.1], [0.1, 0.3]]), 5.0
        prior, proposal = dist.Wishart(torch.tensor(df), scale), dist.Wishart(torch.tensor(4.0), 1.2 * scale)

        def precise(precision):
            return dist.MultivariateNormal(torch.zeros(2), precision_matrix=precision)

        x = torch.tensor([[1.0, 0.5], [-0.3, 1.5]])
        shape = (scale * (df - 1.0)).inverse()
        log_p = torch.from_numpy(scipy.stats.multivariate_t(np.zeros(2), shape.numpy(), df - 1.0).logpdf(x.numpy()))
        require_unbiased(scalar(prior, proposal, precise), x, log_p, start)

    @pytest.mark.parametrize("support", [dist.constraints.real, dist.constraints.real_vector])
    def test_improper_priors(self, support):
        """Of a vector, each number of which is mapped by itself where the support is that of numbers; log p(x) is 0."""
        prior = dist.ImproperUniform(support, (), (2,))
        programs = scalar(prior, dist.Normal(torch.zeros(2), 2.0).to_event(1), lambda z: dist.Normal(z, 1.0).to_event(1))
        x = torch.tensor([[0.5, -1.0], [0.0, 1.0]])
        require_unbiased(programs, x, torch.zeros(2), "guide")

    def test_improper_priors_of_positive_vectors(self):
        r"""Log-normal data: :math:`\int N(\log x; \log z, 1)\, dz = x e^{1 / 2}` for each number."""
        prior = dist.ImproperUniform(dist.constraints.positive, (), (2,))
        proposal = dist.LogNormal(torch.full((2,), 0.5), 1.5).to_event(1)
        programs = scalar(prior, proposal, lambda z: dist.Normal(z.log(), 1.0).to_event(1))
        log_x = torch.tensor([[0.5, 1.0], [0.0, 0.2]])
        require_unbiased(programs, log_x, log_x.sum(-1) + 1.0, "guide", temperatures=20)

    @pytest.mark.parametrize("guide", ["auxiliary", "factor", "observed", "a point"])
    def test_from_the_prior_no_density_of_the_guide_matters(self, guide):
        """The same chains as with any guide that has the latents, forwards and backwards."""
        model, plain = pair()
        x = model.data(4)
        other = at_a_point if guide == "a point" else partial(with_another_site, guide)
        for run in (annealed_importance_sampling, bidirectional):
            expected, found = (run((model, each), x, 3, 6, steps=2) for each in (plain, other))
            name = "log_weights" if run is annealed_importance_sampling else "reverse"
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))

    @pytest.mark.parametrize("beside", ["factor", "observed"])
    def test_from_the_guide_only_the_density_of_its_draws_matters(self, beside):
        model, _ = pair()
        x = model.data(4)
        run = partial(annealed_importance_sampling, temperatures=6, num_chains=3, steps=2, start="guide")
        expected, found = (run((model, partial(with_another_site, kind)), x).log_weights for kind in ("nothing", beside))
        np.testing.assert_array_equal(found, expected)

    @starts
    def test_supports_that_depend_on_the_data(self, start, unfused):
        """Each batch has its own, compiled or not: uniform between 0 and a number given beside x."""

        def model(x, high):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Uniform(torch.zeros_like(high), high))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, high):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Uniform(torch.zeros_like(high), high))

        x, high = torch.tensor([0.5, 1.0, 2.0, 0.0]), torch.tensor([1.0, 4.0, 2.0, 3.0])
        normal = dist.Normal(0.0, 1.0)
        log_p = ((normal.cdf(high - x) - normal.cdf(-x)) / high).log().numpy()
        data, run = (
            {"x": x, "high": high},
            partial(annealed_importance_sampling, (model, guide), start=start, steps=2, max_rows=64),
        )
        eager = run(data, 64, 20, compile=False)
        np.testing.assert_allclose(eager.log_p, log_p, atol=0.15)
        np.testing.assert_allclose(run(data, 64, 20, compile=True).log_weights, eager.log_weights, rtol=1e-6)


def cornered(fails, prior=None):
    r"""A pair that ``fails`` on the half line :math:`z > 1`, of which its prior draws nothing, and has N(z, 1) elsewhere."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Below() if prior is None else prior)
            pyro.sample("x", dist.Normal(fails(z), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(-1.0, 0.1))

    return model, guide


class Below(Stateless):
    """A standard normal below 1, that does not say where it is, so that chains go beyond."""

    support = dist.constraints.real

    def __init__(self, batch_shape=()):
        super().__init__(dist.Normal(torch.zeros(batch_shape), 1.0))

    def sample(self, sample_shape=()):
        below = dist.Normal(0.0, 1.0).cdf(torch.tensor(1.0))
        return dist.Normal(0.0, 1.0).icdf(below * torch.rand(*sample_shape, *self.batch_shape))

    def log_prob(self, value):
        return self.base_dist.log_prob(value) - dist.Normal(0.0, 1.0).cdf(torch.tensor(1.0)).log()

    def expand(self, batch_shape, _instance=None):
        return Below(batch_shape)


def without_a_factor(z):
    """Has a Cholesky factor where z < 1."""
    return z + 0.0 * torch.linalg.cholesky((1.0 - z)[..., None, None])[..., 0, 0].detach()


def validated(z):
    return z + 0.0 * dist.HalfNormal((1.0 - z).detach(), validate_args=True).mean.detach()


def divided(z):
    if bool((z >= 1.0).any()):
        raise ZeroDivisionError("z is too large")
    return z


def no_number(z):
    return torch.where(z < 1.0, z, math.nan)


class TestFailedMoves:
    """Chains whose programs fail beyond 1 are those of the density that ends there."""

    x = torch.tensor([-0.5, 1.0, 0.3], dtype=torch.float64)

    def log_p(self):
        line = torch.linspace(-12.0, 1.0, 4001)
        return by_quadrature(Below().log_prob, lambda z, x: dist.Normal(z, 1.0).log_prob(x), self.x, line)

    @pytest.mark.parametrize("fails", [without_a_factor, no_number])
    def test_they_are_rejected_and_counted(self, fails):
        found = require_unbiased(cornered(fails), self.x, self.log_p(), "prior", times=100, detects=0.25)
        assert 0 < found.failed_moves < 0.7 * 9 * 8 * 300
        assert np.isfinite(found.log_weights).all()
        assert f"  {'moves that failed':<22}{found.failed_moves:>12,} of {9 * 8 * 300:,}" in str(found)

    def test_all_ways_to_fail_are_alike(self, unfused):
        """Errors and numbers that are none end the same moves, compiled or not."""
        runs = {
            fails: annealed_importance_sampling(cornered(fails), self.x, 3, 8, steps=1)
            for fails in (without_a_factor, validated, divided, no_number)
        }
        compiled = [
            annealed_importance_sampling(cornered(fails), self.x, 3, 8, steps=1, compile=True)
            for fails in (without_a_factor, no_number)
        ]
        for found in (*runs.values(), *compiled):
            np.testing.assert_allclose(found.log_weights, runs[no_number].log_weights, rtol=1e-6)
            assert found.failed_moves == runs[no_number].failed_moves > 0

    def test_both_ways(self):
        found = bidirectional(cornered(without_a_factor), self.x.repeat(20), 6, 20, steps=3)
        assert found.failed_moves > 0
        assert "moves that failed" in str(found)
        line = torch.linspace(-12.0, 1.0, 4001)
        exact = by_quadrature(
            Below().log_prob, lambda z, x: dist.Normal(z, 1.0).log_prob(x), torch.from_numpy(found.data), line
        ).numpy()
        low, high = found.interval(1.0 - 1e-6)
        assert ((low <= exact) & (exact <= high)).all()

    def test_where_nothing_fails_nothing_is_said(self):
        model, guide = pair()
        found = annealed_importance_sampling((model, guide), model.data(3), 3, 4, steps=1)
        assert found.failed_moves == 0
        assert "failed" not in str(found)

    @pytest.mark.parametrize(
        ("fails", "message"),
        [
            (without_a_factor, r"the programs fail where chains begin, at draws of the prior: \w*LinAlgError: linalg.chol"),
            (divided, r"the programs fail where .* prior: ZeroDivisionError: z is too large; .*take start=\"guide\""),
            (no_number, "the log density of site 'x' in the model is not a number"),
        ],
    )
    def test_where_chains_begin_errors_are_the_programs_own(self, fails, message):
        """Of forty draws of a prior that has a sixth of its mass beyond 1; the first few must be below."""
        model, guide = cornered(fails, dist.Normal(0.0, 1.0))
        with pytest.raises(InputError, match=message):
            annealed_importance_sampling((model, guide), self.x, 40, 4, seed=3)


def test_chains_of_which_few_count_are_warned_of():
    """Of sixteen equal weights all count, of sixteen of which seven are not zero, seven, and of eight, eight."""
    found = np.zeros((16, 100))
    found[7:, :5] = -np.inf
    found[8:, 5:50] = -np.inf
    annealed = partial(AnnealedLikelihood, acceptance=np.ones(1), temperatures=2, start="prior", schedule="sigmoid", steps=1)
    assert annealed(found).share_unmet == 0.05
    assert annealed(found).warning is None
    assert "Warning" not in str(annealed(found))
    found[7:, 5] = -np.inf
    assert annealed(found).share_unmet == 0.06
    assert "fewer than half of the chains count for 6.0% of the data" in str(annealed(found))
    assert annealed(found[:1]).warning is None


def test_the_interval_is_that_of_the_mean_weight():
    """Of the mean weight over p(x), which has no upper end where its standard error is as large as itself."""
    log_weights = torch.randn(5, 4).numpy() * [0.1, 0.5, 1.0, 5.0] - 30.0
    found = AnnealedLikelihood(log_weights, np.zeros(0), 1, "prior", "sigmoid", 1)
    weights = np.exp(log_weights)
    reach = scipy.stats.t(4).ppf(0.95) * scipy.stats.sem(weights) / weights.mean(0)
    low, high = found.interval(0.9)
    np.testing.assert_allclose(np.exp(low), weights.mean(0) / (1.0 + reach))
    np.testing.assert_allclose(np.exp(-high), np.maximum(1.0 - reach, 0.0) / weights.mean(0))
    assert np.isinf(high).any()
    assert np.isfinite(high).any()


def test_the_interval_between_both_bounds():
    """Below the mean over the chains forward, and above that over those back."""
    forward, reverse = torch.randn(2, 5, 4).numpy() * 0.1 - 30.0
    low, high = Bidirectional(forward, reverse, 1, np.zeros(4)).interval(0.9)
    np.testing.assert_allclose(low, scipy.stats.t.interval(0.9, 4, forward.mean(0), scipy.stats.sem(forward))[0])
    np.testing.assert_allclose(high, scipy.stats.t.interval(0.9, 4, reverse.mean(0), scipy.stats.sem(reverse))[1])


def test_chains_that_have_not_met_bracket_too():
    """Log weights of N(-s^2 / 2, s^2) with mean 1, s up to 6, of which the heaviest carries all: 40,000 data."""
    scale = torch.linspace(0.1, 6.0, 40_000)
    below, above = scale * torch.randn(2, 16, 40_000)
    forward, reverse = (below - scale**2 / 2).numpy(), (above + scale**2 / 2).numpy()
    found = Bidirectional(forward, reverse, 1, np.zeros(40_000))
    low, high = found.interval(1.0 - 1e-6)
    assert ((low < 0.0) & (high > 0.0)).all()
    assert (found.lower > 0.0).any()
    assert (found.upper < 0.0).any()


def test_a_weight_of_zero_and_a_single_chain():
    forward, reverse = torch.randn(2, 3, 1).numpy()
    forward[0] = -math.inf
    low, high = Bidirectional(forward, reverse, 1, np.zeros(1)).interval()
    assert np.isnan(low).all()
    assert np.isfinite(high).all()
    assert np.isnan(Bidirectional(forward[:1], reverse[:1], 1, np.zeros(1)).interval()).all()


def test_the_bounds_of_both_directions():
    forward, reverse = torch.randn(2, 5, 4).numpy() - 30.0
    found = Bidirectional(forward, reverse, 1, np.zeros(4))
    np.testing.assert_allclose(found.lower, np.log(np.exp(forward).mean(0)))
    np.testing.assert_allclose(found.upper, -np.log(np.exp(-reverse).mean(0)))


class TestBackwards:
    @one_start
    def test_the_bounds_hold_and_close(self, start):
        """In the mean, at z-tests of 1e-5, of data that the model has drawn."""
        model, guide = pair()
        x = model.data(300)
        gaps = []
        for temperatures in (5, 20, 80):
            found = bidirectional((model, guide), x, 4, temperatures, start=start, schedule="adaptive", steps=3)
            lower, upper = found.lower, found.upper
            gap = upper - lower
            low, high = found.interval(1.0 - 1e-6)
            exact = model.log_p(torch.from_numpy(found.data)).numpy()
            assert ((low <= exact) & (exact <= high)).all()
            assert gap.mean() > -4.42 * gap.std() / 300**0.5
            gaps.append(gap.mean())
        assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]

    def test_each_weight_is_right_in_the_mean(self):
        """:math:`E[w] = p(x)` and :math:`E[1 / w] = 1 / p(x)`."""
        model, guide = pair()
        seen = {}
        found = bidirectional((Recorded(model, seen), guide), model.data(1000), 4, 30, start="guide", steps=5)
        log_p = model.log_p(seen["x"]).numpy()
        assert_mean(torch.from_numpy(np.exp(found.forward - log_p)), 1.0, detects=0.2)
        assert_mean(torch.from_numpy(np.exp(log_p - found.reverse)), 1.0, detects=0.2)
        assert (found.lower.mean() - log_p.mean()) < 0.0 < (found.upper.mean() - log_p.mean())

    def test_the_table(self):
        model, guide = pair()
        said = str(bidirectional((model, guide), model.data(4), 3, 10, steps=1))
        assert "log p(x) of 4 data drawn from the model by 3 annealed chains each way, 10 temperatures, in nats" in said


class Recorded(nn.Module):
    """A model that tells what data it was last called with."""

    def __init__(self, model, seen):
        super().__init__()
        self.model, self.seen = model, seen

    def forward(self, x):
        self.seen["x"] = x
        return self.model(x)


class TestRefusals:
    def test_discrete_latents(self):
        def model(x):
            with pyro.plate("data", len(x)):
                c = pyro.sample("c", dist.Bernoulli(0.5))
                pyro.sample("x", dist.Normal(c, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("c", dist.Bernoulli(torch.full((len(x),), 0.5)))

        with pytest.raises(InputError, match=r"latent site 'c' is discrete \(Bernoulli\), and Hamiltonian"):
            annealed_importance_sampling((model, guide), torch.randn(3))

    def test_latents_on_a_sphere(self):
        vae = VAE((3,), 3, prior=UniformSphere, guide=pyrovae.guides.VonMisesFisher, likelihood=Normal)
        with pytest.raises(
            InputError, match=r"latent site 'z' has the support Sphere.*, which has no bijection to unconstrained space"
        ):
            annealed_importance_sampling(vae, torch.randn(2, 3))

    def test_points(self):
        model, _ = pair()
        with pytest.raises(InputError, match=r"site 'z' of the guide is a Delta.*; take start=\"prior\""):
            annealed_importance_sampling((model, at_a_point), model.data(3), start="guide")

    def test_sites_that_are_drawn_beside_the_latents(self):
        model, _ = pair()
        with pytest.raises(InputError, match=r"site 'a' of the guide is no latent site.*; take start=\"prior\""):
            annealed_importance_sampling((model, partial(with_another_site, "auxiliary")), model.data(3), start="guide")

    def test_a_prior_that_cannot_be_drawn(self):
        for prior in (dist.ImproperUniform(dist.constraints.real, (), ()), dist.Normal(0.0, 1.0).mask(False)):
            with pytest.raises(InputError, match=r"prior of latent site 'z' is improper.*; take start=\"guide\""):
                annealed_importance_sampling(scalar(prior, dist.Normal(0.0, 2.0)), torch.randn(3))

    def test_a_support_that_nobody_states(self):
        nowhere = Stateless(dist.Normal(0.0, 1.0))
        with pytest.raises(InputError, match="distribution of latent site 'z', Stateless, does not state its support"):
            annealed_importance_sampling(scalar(nowhere, nowhere), torch.randn(3))

    def test_a_support_that_moves(self):
        def model(x):
            with pyro.plate("data", len(x)):
                low = pyro.sample("low", dist.Normal(0.0, 1.0))
                z = pyro.sample("z", dist.Uniform(low, low + 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                low = pyro.sample("low", dist.Normal(0.0, 1.0))
                pyro.sample("z", dist.Uniform(low, low + 1.0))

        for start in ("prior", "guide"):
            with pytest.raises(InputError, match=r"what latent site 'z' can be \(Uniform\) depends on other latents"):
                annealed_importance_sampling((model, guide), torch.randn(3), start=start)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_chains": 0}, "num_chains is 0; expected at least 1"),
            ({"temperatures": 0}, "temperatures is 0; expected at least 1"),
            ({"steps": 0}, "steps is 0; expected at least 1"),
            ({"max_rows": 0}, "max_rows is 0; expected at least 1"),
            ({"start": "posterior"}, "start is 'posterior'; expected one of 'prior', 'guide'"),
            ({"schedule": "cosine"}, "schedule is 'cosine'; expected one of 'sigmoid', 'linear', 'adaptive'"),
        ],
    )
    @pytest.mark.parametrize("function", [annealed_importance_sampling, bidirectional])
    def test_settings(self, function, settings, message):
        model, guide = pair()
        with pytest.raises(InputError, match=message):
            function((model, guide), model.data(3), **settings)
