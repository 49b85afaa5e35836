r"""What of a guide is the density of its draws, on x ~ N(z, 1), z ~ N(0, 1), where :math:`p(x) = N(x; 0, 2)`."""

import math
from itertools import product

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused, slow_but
from pyro import poutine
from pyro.contrib.easyguide import EasyGuide
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.poutine.trace_struct import Trace

from pyrovae import ELBO, annealed_importance_sampling, bound_curve, compare, fit, impute, log_likelihood, log_weights
from pyrovae.engine.validation import check_pair
from pyrovae.evaluation.latent.kl_decomposition import kl_decomposition
from pyrovae.evaluation.latent.rate_distortion import rate_distortion

pytestmark = pytest.mark.usefixtures("float64")
AUXILIARY = {"is_auxiliary": True}


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))


def with_factor(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))
        pyro.factor("penalty", x.new_ones(len(x)), has_rsample=True)


def with_observed(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))
        pyro.sample("beside", dist.Normal(0.0, 1.0), obs=x, infer=AUXILIARY)


def carried(x):
    """z = 2 a, whose log density is that of a less log 2."""
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x / 4, math.sqrt(0.5) / 2), infer=AUXILIARY)
        pyro.sample("z", dist.Delta(2.0 * a, log_density=-math.log(2.0) * torch.ones(())))


class Grouped(EasyGuide):
    def guide(self, x):
        with self.plate("data", len(x)):
            group = self.group(match="z")
            loc = (x / 2).unsqueeze(-1)
            group.sample("together", dist.Normal(loc, math.sqrt(0.5)).to_event(1))


@pytest.fixture
def x():
    return torch.randn(6) * 1.4


def exact(x):
    return dist.Normal(0.0, math.sqrt(2.0)).log_prob(x)


@pytest.mark.parametrize("guide", [posterior, with_factor, with_observed, carried], ids=lambda guide: guide.__name__)
class TestTheDensityOfTheDraws:
    """At the posterior every weight is p(x), whatever else the guide has."""

    def test_of_weights(self, guide, x):
        weights = log_weights((model, guide), x, num_samples=3)
        torch.testing.assert_close(weights.total, exact(x).expand(3, 6), rtol=0, atol=1e-10)

    def test_of_likelihoods(self, guide, x):
        estimate = log_likelihood((model, guide), x, num_samples=20)
        torch.testing.assert_close(torch.from_numpy(estimate.log_p), exact(x), rtol=0, atol=1e-10)

    def test_of_curves_and_comparisons(self, guide, x):
        curve = bound_curve((model, guide), x, (1, 5), num_samples=20)
        torch.testing.assert_close(torch.from_numpy(curve.log_likelihood.log_p), exact(x), rtol=0, atol=1e-10)
        compared = compare({"one": (model, guide), "other": (model, posterior)}, x, num_samples=20)
        assert compared.difference("one", "other") == pytest.approx((0.0, 0.0), abs=1e-10)

    def test_a_bound_for_training_is_that_of_stock_pyro(self, guide, x):
        """Its definition has every term of the guide."""
        module = ELBO(1)(model, guide)
        module.start(x)
        pyro.set_rng_seed(1)
        ours = module(x).item()
        pyro.set_rng_seed(1)
        assert ours == pytest.approx(Trace_ELBO().loss(model, guide, x), abs=1e-9)


@pytest.mark.parametrize("guide", [with_factor, with_observed], ids=lambda guide: guide.__name__)
def test_a_rate_has_no_other_terms(guide, x):
    found = rate_distortion({"pair": (model, guide), "plain": (model, posterior)}, x, num_samples=5)
    assert found.rates["pair"] == pytest.approx(found.rates["plain"], abs=1e-12)
    assert found.distortions["pair"] == pytest.approx(found.distortions["plain"], abs=1e-12)


def test_a_group_of_an_easy_guide_carries_what_it_drew(x):
    guide = Grouped(model)
    torch.testing.assert_close(
        torch.from_numpy(log_likelihood((model, guide), x, num_samples=20).log_p), exact(x), rtol=0, atol=1e-10
    )


def at_a_point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x / 2))


def half_at_a_point(x):
    """Of the two latents the second is a function of the first."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x / 2, 0.7))
        pyro.sample("u", dist.Delta(0.5 * z))


def beside(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(x / 2, 0.5), infer=AUXILIARY)
        pyro.sample("z", dist.Normal(a, 0.5))


def choosing(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Bernoulli(x.new_full((len(x),), 0.5)), infer=AUXILIARY)
        pyro.sample("z", dist.Normal(x / 2 + 0.1 * a, 0.8))


def two_latents(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        u = pyro.sample("u", dist.Normal(z, 1.0))
        pyro.sample("x", dist.Normal(u, 1.0), obs=x)


estimates = {
    "log_likelihood": lambda pair, x: log_likelihood(pair, x, num_samples=20),
    "bound_curve": lambda pair, x: bound_curve(pair, x, (1, 5), num_samples=20),
    "compare": lambda pair, x: compare({"one": pair, "other": (model, posterior)}, x, num_samples=20),
}


@pytest.mark.parametrize("estimate", estimates.values(), ids=estimates)
class TestWhatIsNoProposal:
    @pytest.mark.parametrize(
        ("program", "guide", "words"),
        [
            (model, at_a_point, ["'z'", "Delta", "AutoNormal"]),
            (two_latents, half_at_a_point, ["'u'", "Delta", "AutoNormal"]),
            (model, beside, ["'a'", "auxiliary"]),
            (model, choosing, ["'a'", "auxiliary"]),
        ],
        ids=["a point", "a function", "auxiliary", "auxiliary and discrete"],
    )
    def test_is_refused(self, program, guide, words, estimate, x):
        with refused(*words):
            estimate((program, guide), x)

    def test_a_point_estimate_by_an_autoguide_is_refused(self, estimate, x):
        with refused("'z'", "Delta", "AutoNormal", "AutoDelta"):
            estimate((model, AutoDelta(model)), x)


class Clipping(dist.TorchDistribution):
    """Draws that are clipped, with the density of what they should have been, which it remembers."""

    arg_constraints = {}  # noqa: RUF012
    support = dist.constraints.real
    has_rsample = True

    def __init__(self, loc):
        self._base = dist.Normal(loc, 1.0)
        super().__init__(self._base.batch_shape, validate_args=False)
        self._drawn = None

    def rsample(self, sample_shape=()):
        value = self._base.rsample(sample_shape)
        self._drawn = value.clamp(-0.5, 0.5), self._base.log_prob(value)
        return self._drawn[0]

    def log_prob(self, value):
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]
        return self._base.log_prob(value)

    def expand(self, batch_shape, _instance=None):
        return Clipping(self._base.loc.expand(batch_shape))


@pytest.mark.parametrize("estimate", estimates.values(), ids=estimates)
def test_draws_of_another_density_are_refused(estimate, x):
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Clipping(x / 2))

    with refused("'z'", "Clipping", "nats"):
        estimate((model, guide), x)


def test_a_flow_whose_draws_are_its_own_is_no_such(x):
    """A flow that has to be inverted numerically differs by rounding, and a coupling of splines by none."""
    zuko = pytest.importorskip("zuko")
    from pyro.contrib.zuko import ZukoToPyro

    flow = zuko.flows.NSF(features=1, context=1, transforms=2, hidden_features=(8,))

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(flow(x[:, None])))

    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    estimate = log_likelihood((program, guide), x, num_samples=4000)
    error = torch.from_numpy(estimate.standard_error)
    assert ((torch.from_numpy(estimate.log_p) - exact(x)).abs() < 4.42 * error).all()


def test_a_flow_that_clips_its_draws_is_refused(x):
    """zuko's neural autoregressive flow inverts within [-10, 10] and states the density of what it clipped."""
    zuko = pytest.importorskip("zuko")
    from pyro.contrib.zuko import ZukoToPyro

    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    flow = zuko.flows.NAF(3, 4, transforms=2, signal=8, network={"hidden_features": (16, 16)})
    data = torch.randn(50, 4)

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", ZukoToPyro(flow(x)))

    def program(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x[:, :1])

    with refused("'z'", "ZukoToPyro", 800, "nats"):
        log_likelihood((program, guide), data, num_samples=50)


ROUTES = ("fit", "log_likelihood", "annealing", "bound_curve", "rate_distortion", "kl")
AXES = (("subsample", (8,)), ("second axis", (5, 8)), ("second axis", (8, 8)))
DATA_PLATES = [(*axis, route) for axis, route in product(AXES, ROUTES)]


def alternate(pair, shape, route):
    """Whether it is one of half of the grid, with each axis on half of the routes."""
    return (AXES.index((pair, shape)) + ROUTES.index(route)) % 2 == 0


class TestTheDataPlate:
    """One datum has weights of its own on every route that makes batches, or is refused."""

    def subsampled(self, x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])

    def of_subsample(self, x):
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("z", dist.Normal(x[rows] / 2, 0.8))

    def over_second_axis(self, x):
        with pyro.plate("data", x.shape[1]):
            z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), x.new_ones(x.shape[0])).to_event(1), obs=x.T)

    def of_second_axis(self, x):
        with pyro.plate("data", x.shape[1]):
            pyro.sample("z", dist.Normal(x.mean(0) / 2, 0.8))

    @pytest.mark.parametrize(("pair", "shape", "route"), slow_but(alternate, DATA_PLATES), ids=str)
    def test_that_holds_other_data_is_refused(self, pair, shape, route):
        pair = (self.subsampled, self.of_subsample) if pair == "subsample" else (self.over_second_axis, self.of_second_axis)
        x = torch.randn(shape)
        routes = {
            "fit": lambda: fit(pair, x, epochs=1, batch_size=8, progress=False, compile=False),
            "log_likelihood": lambda: log_likelihood(pair, x, num_samples=10),
            "annealing": lambda: annealed_importance_sampling(pair, x, num_chains=2, temperatures=2),
            "bound_curve": lambda: bound_curve(pair, x, (1,), num_samples=10),
            "rate_distortion": lambda: rate_distortion({"pair": pair}, x, num_samples=2),
            "kl": lambda: kl_decomposition(pair, x, num_samples=2),
        }
        with refused("'data'", 'pyro.plate("data", len(x))', "subsampling"):
            routes[route]()

    def test_without_a_size_has_that_of_its_sites(self, x):
        def sizeless(program):
            def run(x):
                with pyro.plate("data"):
                    return program(x)

            return run

        def inner(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            pyro.sample("z", dist.Normal(x / 2, math.sqrt(0.5)))

        pair = sizeless(inner), sizeless(guide)
        assert check_pair(*pair, x).size == len(x)
        torch.testing.assert_close(log_weights(pair, x, num_samples=3).total, exact(x).expand(3, 6), rtol=0, atol=1e-10)
        log_p = log_likelihood(pair, x, num_samples=20).log_p
        torch.testing.assert_close(torch.from_numpy(log_p), exact(x), rtol=0, atol=1e-10)

    def test_without_a_size_does_not_share_a_latent(self, x):
        def shared(x):
            with pyro.plate("data"):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data"):
                pyro.sample("z", dist.Normal(0.0, 1.0))

        with refused("'z'", 6, "'data'", 'pyro.plate("data", len(x))'):
            log_weights((shared, guide), x)


def test_imputation_is_weighed_by_the_density_of_the_draws(x):
    """A factor in the guide that favours one latent over another must not tilt what is imputed."""

    def program(x, mask=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            seen = dist.Normal(z.unsqueeze(-1), 0.1)
            pyro.sample("x", (seen if mask is None else seen.mask(mask)).to_event(1), obs=x)

    def guide(tilt):
        def run(x, mask=None):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.factor("tilt", tilt * z, has_rsample=True)

        return run

    data, mask = torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool)
    drawn = [impute((program, guide(tilt)), data, mask, num_samples=50, num_particles=20, seed=0) for tilt in (0.0, 3.0)]
    torch.testing.assert_close(*drawn)


@pytest.mark.filterwarnings("ignore::pyrovae.engine.particles.ParticlesInTurnWarning")
@pytest.mark.parametrize("particles", [1, 3, 7])
def test_values_of_several_particles_are_no_run(particles):
    held = Trace()
    held.add_node("z", name="z", type="sample", value=torch.randn(7, 4), is_observed=False, infer={})
    with refused("'z'", "7, 4)", "4)", "particles"):
        log_weights((model, poutine.replay(posterior, trace=held)), torch.randn(4), num_samples=particles)
