from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import measure, refused
from programs import Chain, ChainGuide, GaussianGuide, LatentPlateGuide, LinearGaussian, WithLatentPlate, gaussian_kl
from pyro import poutine
from pyro.infer import SVI

from pyrovae import compile
from pyrovae.engine.log_weights import log_weights
from pyrovae.objectives import ELBO
from pyrovae.objectives.beta_elbo import BetaELBO

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def pair():
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.2, widen=1.2, diagonal=True)


def parameters(model, guide):
    return [*model.parameters(), *guide.parameters()]


def gradients(objective, model, guide, x):
    return torch.autograd.grad(measure(objective, model, guide, x).loss, parameters(model, guide), allow_unused=True)


def weighted(measured, beta):
    return measured.reconstruction - beta * measured.kl


def kl_of_dimensions(guide, x):
    """From the standard normal, shape ``(B, D)``."""
    loc, variance = guide.moments(x)[0], guide.factor.detach().diagonal().square()
    return 0.5 * (loc.square() + variance - 1.0 - variance.log())


class TestBeta:
    @pytest.mark.parametrize("analytic_kl", [False, True])
    def test_at_one_it_is_the_elbo(self, pair, analytic_kl):
        x = pair[0].data(5)
        ours, elbo = BetaELBO(num_particles=3, analytic_kl=analytic_kl), ELBO(3, analytic_kl)
        torch.testing.assert_close(measure(ours, *pair, x), measure(elbo, *pair, x))
        torch.testing.assert_close(gradients(ours, *pair, x), gradients(elbo, *pair, x))

    @pytest.mark.parametrize("programs", [LinearGaussian, Chain, WithLatentPlate])
    def test_as_it_comes_it_is_the_elbo_as_it_comes(self, programs):
        model = programs()
        guides = {
            LinearGaussian: partial(GaussianGuide, diagonal=True),
            Chain: ChainGuide,
            WithLatentPlate: LatentPlateGuide,
        }
        guide, x = guides[programs](model, shift=0.2, widen=1.2), model.data(5)
        ours, elbo = (measure(objective, model, guide, x) for objective in (BetaELBO(beta=1), ELBO()))
        torch.testing.assert_close(ours, elbo, rtol=0, atol=1e-12)
        slopes = [gradients(objective, model, guide, x) for objective in (BetaELBO(beta=1), ELBO())]
        assert any(slope is not None and slope.abs().max() > 0 for slope in slopes[0])
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
    def test_it_weighs_the_closed_form_and_leaves_what_is_reported(self, pair, beta):
        x = pair[0].data(5)
        measured = measure(BetaELBO(beta, num_particles=2, analytic_kl=True), *pair, x)
        prior = torch.zeros(5, 2), torch.eye(2)
        loc, factor = pair[1].moments(x)[0], pair[1].factor.detach().diagonal().diag()
        torch.testing.assert_close(measured.kl, gaussian_kl((loc, factor @ factor), prior))
        torch.testing.assert_close(measured.bound, weighted(measured, beta))

    def test_a_scaled_site_counts_by_its_scale(self, pair):
        x = pair[0].data(4)
        scaled = [poutine.scale(program, scale=0.25) for program in pair]
        plain, quarter = measure(BetaELBO(2.0), *pair, x), measure(BetaELBO(2.0), *scaled, x)
        pyro.set_rng_seed(1)
        weights = log_weights(pair, x)
        expected = 0.25 * (plain.reconstruction - 2.0 * (weights.log_proposal - weights.log_prior).mean(0))
        torch.testing.assert_close(quarter.bound, expected)


class TestWarmup:
    def test_the_weight_rises_from_nothing_in_equal_steps(self, pair):
        x = pair[0].data(5)
        module = BetaELBO(2.0, warmup=4)(*pair)
        module.start(x)
        for beta in (0.0, 0.5, 1.0, 1.5, 2.0, 2.0):
            measured = module.measure(x)
            torch.testing.assert_close(measured.bound, weighted(measured, beta))

    def test_evaluation_has_the_full_weight_and_is_no_step(self, pair):
        x = pair[0].data(5)
        module = BetaELBO(2.0, warmup=4)(*pair)
        module.start(x)
        module(x)
        with torch.no_grad():
            measured = module.measure(x)
        torch.testing.assert_close(measured.bound, weighted(measured, 2.0))
        measured = module.eval().measure(x)
        torch.testing.assert_close(measured.bound, weighted(measured, 2.0))
        measured = module.train().measure(x)
        torch.testing.assert_close(measured.bound, weighted(measured, 0.5))

    def test_the_count_is_a_buffer_and_no_weight(self, pair):
        x = pair[0].data(5)
        module = BetaELBO(warmup=4)(*pair)
        for _ in range(3):
            module(x)
        assert dict(module.named_buffers())["state.count"] == 3
        assert module.state_dict().keys() == BetaELBO()(*pair).state_dict().keys()

    def test_svi_takes_steps_too(self, pair):
        x = pair[0].data(5)
        objective = BetaELBO(warmup=4)
        svi = SVI(*pair, pyro.optim.SGD({"lr": 0.0}), objective)
        for _ in range(2):
            svi.step(x)
        svi.evaluate_loss(x)
        assert objective.state is not None
        assert objective.state.count == 2

    def test_a_recorded_step_carries_it(self, pair, unfused):
        x = pair[0].data(5)
        eager, other = (BetaELBO(2.0, warmup=2, free_bits=0.5, free_bits_per="dimension")(*pair) for _ in range(2))
        fused = compile(other, x)
        assert other.state.count == 0
        for _ in range(4):
            values = []
            for module in (eager, fused):
                pyro.set_rng_seed(1)
                loss = module(x)
                values.append([loss, *torch.autograd.grad(loss, parameters(*pair))])
            for ours, theirs in zip(*values, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
        assert other.state.count == 4


class TestFreeBits:
    @pytest.mark.parametrize("analytic_kl", [False, True])
    def test_of_sites_they_floor_the_mean_over_the_batch(self, analytic_kl):
        model = Chain()
        guide = ChainGuide(model, shift=0.3, widen=1.3)
        x = model.data(6)
        pyro.set_rng_seed(1)
        traces = log_weights((model, guide), x, num_samples=3)

        def kl(name):
            if analytic_kl:
                fns = (trace.nodes[name]["fn"] for trace in (traces.guide, traces.model))
                return torch.distributions.kl_divergence(*fns).mean(0)
            return (traces.proposal_terms[name] - traces.latent_terms[name]).mean(0)

        low, high = sorted((kl("a"), kl("b")), key=lambda value: value.mean().item())
        bits = 0.5 * (low.mean() + high.mean()).item()
        assert low.max() > bits  # the mean is less, though not every datum
        assert high.min() < bits
        measured = measure(BetaELBO(2.0, 3, analytic_kl, free_bits=bits), model, guide, x)
        torch.testing.assert_close(measured.bound, measured.reconstruction - 2.0 * (high + bits))
        torch.testing.assert_close(measured.kl, low + high)
        total = 6 * sum(max(bits, value.mean()) for value in (low, high))
        torch.testing.assert_close(measured.loss, 2.0 * total - measured.reconstruction.sum())

    def test_of_dimensions_they_floor_each_coordinate(self, pair):
        plate = WithLatentPlate()
        for model, guide in (pair, (plate, LatentPlateGuide(plate, shift=0.2, widen=1.2))):
            x = model.data(6)
            low, high = sorted(kl_of_dimensions(guide, x).T, key=torch.mean)
            bits = 0.5 * (low.mean() + high.mean()).item()
            assert (low.min() < bits < low.max()) or (high.min() < bits < high.max())
            measured = measure(BetaELBO(num_particles=3, free_bits=bits, free_bits_per="dimension"), model, guide, x)
            torch.testing.assert_close(measured.bound, measured.reconstruction - high - bits)
            torch.testing.assert_close(measured.kl, low + high)

    @pytest.mark.parametrize("per", ["site", "dimension"])
    def test_what_is_floored_has_no_gradient_and_what_is_not_its_own(self, pair, per):
        x = pair[0].data(5)
        floored, weightless = BetaELBO(free_bits=1e3, free_bits_per=per), BetaELBO(0.0)
        torch.testing.assert_close(gradients(floored, *pair, x), gradients(weightless, *pair, x))
        spent, plain = BetaELBO(analytic_kl=True, free_bits=1e-6, free_bits_per=per), BetaELBO(analytic_kl=True)
        torch.testing.assert_close(gradients(spent, *pair, x), gradients(plain, *pair, x))

    def test_dimensions_of_any_rank(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
                pyro.sample("x", dist.Normal(z.sum((-1, -2)), 1.0), obs=x)

        loc = torch.arange(6.0).reshape(2, 3)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(loc + x[:, None, None], 1.0).to_event(2))

        x = torch.tensor([0.5, -0.5])
        kl = 0.5 * (loc + x[:, None, None]).square()
        measured = measure(BetaELBO(num_particles=2, free_bits=2.0, free_bits_per="dimension"), model, guide, x)
        expected = torch.where(kl.mean(0) < 2.0, 2.0, kl).sum((-1, -2))
        torch.testing.assert_close(measured.reconstruction - measured.bound, expected)

    def test_without_latent_sites_there_is_nothing_to_floor(self):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

        x = torch.randn(3)
        measured = BetaELBO(free_bits=1.0)(model, lambda x: None).measure(x)
        torch.testing.assert_close(measured.bound, dist.Normal(0.0, 1.0).log_prob(x))


def heavy_tailed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.StudentT(4.0, torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def heavy_tailed_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1))


class FullPrior(LinearGaussian):
    def latent(self):
        return pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))


class TestRefusals:
    def test_dimensions_without_a_formula(self, pair):
        masked = [poutine.mask(program, mask=torch.tensor(True)) for program in pair]
        full = FullPrior(), GaussianGuide(pair[0])
        objective = BetaELBO(free_bits=0.5, free_bits_per="dimension")
        for programs in (full, (pair[0], full[1]), masked, (heavy_tailed, heavy_tailed_guide)):
            with refused("'z'", "torch.distributions.kl_divergence", 'free_bits_per="site"'):
                objective(*programs)(torch.randn(4, 3 if programs[0] is not heavy_tailed else 2))

    def test_latents_in_two_orders(self):
        model = Chain("ab")
        guide = ChainGuide(model, "ba")
        with refused("'a', 'b'", "'b', 'a'", "free_bits=0"):
            BetaELBO(free_bits=0.5)(model, guide)(model.data(3))
        assert BetaELBO()(model, guide)(model.data(3)).isfinite()

    def test_an_auxiliary_site(self, pair):
        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                noise = pyro.sample("noise", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(noise, 1.0).to_event(1))

        with refused("'noise'", "auxiliary", "free_bits=0"):
            BetaELBO(free_bits=0.5)(pair[0], guide)(pair[0].data(3))

    @pytest.mark.parametrize("name", ["beta", "warmup", "free_bits"])
    def test_negative_numbers(self, name):
        with refused(name, -1, 0):
            BetaELBO(**{name: -1})

    def test_groups_that_are_none(self):
        with refused("free_bits_per", "'pixel'", "'site'", "'dimension'"):
            BetaELBO(free_bits_per="pixel")  # pyright: ignore
        with refused("free_bits_per", "'dimension'", "analytic_kl=True"):
            BetaELBO(analytic_kl=False, free_bits=0.5, free_bits_per="dimension")
