"""Stopped draws and densities, scaled gradients and dreams, of every form of program."""

from contextlib import suppress
from copy import deepcopy
from functools import partial
from threading import Thread

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, refused
from programs import (
    PLATES,
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    Mixture,
    MixtureGuide,
    Subsampled,
    Tutorial,
    WithLatentPlate,
    WithPixelPlate,
    functions,
)
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import transforms
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyrovae import VAE
from pyrovae.engine.call import Call
from pyrovae.engine.gradient_factors import ScaledGradientDraws
from pyrovae.engine.pair import Pair
from pyrovae.engine.resampling import choose
from pyrovae.engine.sleep_phase import dream
from pyrovae.engine.stop_gradient_densities import observe_apart, stopped_density
from pyrovae.engine.stop_gradient_draws import draw_stopped, stop_values
from pyrovae.engine.stop_gradient_programs import stopping_model
from pyrovae.engine.validation import find_plates
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.objectives import (
    CUBO,
    ELBO,
    EUBO,
    IWAE,
    PIWAE,
    VIMCO,
    ReweightedWakeSleep,
    TailAdaptive,
    WakeSleep,
)
from pyrovae.objectives.compiled import compile

pytestmark = pytest.mark.usefixtures("float64")
small = partial(MLP, hidden=(4,))


def called(model, guide, x, particles=4):
    return Call(model, guide, (x,), {}, particles, find_plates((model, guide), x))


def modules():
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.3)


def chain():
    model = Chain()
    return model, ChainGuide(model, shift=0.3)


def methods():
    tutorial = Tutorial()
    return tutorial.model, tutorial.guide


def inner_plate():
    model = WithLatentPlate()
    return model, LatentPlateGuide(model, shift=0.3)


class Positive(PyroModule):
    """A guide whose scale is a parameter with a constraint."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = PyroParam(torch.tensor(0.7), dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", dist.Normal(self.linear(x), self.scale).to_event(1))


def constrained():
    return LinearGaussian(), Positive()


def zuko_flow():
    zuko = pytest.importorskip("zuko")
    flow = zuko.flows.MAF(2, 3, transforms=1, hidden_features=(8,))

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", ZukoToPyro(flow(x)))

    return LinearGaussian(), guide


every_form = pytest.mark.parametrize(
    "pair", [modules, lambda: functions(*modules()), methods, chain, inner_plate, constrained, zuko_flow]
)


def trained(guide_or_model):
    """All parameters that a pair has, wherever they are kept."""
    return [value for value in guide_or_model.parameters() if value.requires_grad]


@every_form
class TestStoppedDensity:
    def test_it_is_the_density_without_its_parameters(self, pair):
        x, programs = torch.randn(5, 3), pair()
        call = called(*programs, x)
        draws = call.draw()
        weights = call.weigh(draws)
        density = stopped_density(call, draws, weights)
        torch.testing.assert_close(density, weights.log_proposal, rtol=1e-8, atol=1e-8)
        assert not stopped_density(call, stop_values(draws), weights).requires_grad
        assert weights.log_proposal.requires_grad

    def test_the_draws_are_alive(self, pair):
        """The gradient with respect to the draws is that of the density itself."""
        x, programs = torch.randn(5, 3), pair()
        call = called(*programs, x)
        draws = call.draw()
        leaves = stop_values(draws)
        sites = [site for site in leaves.nodes.values() if site["type"] == "sample" and site["value"].is_floating_point()]
        for site in sites:
            site["value"].requires_grad_()
        weights = call.weigh(draws)
        values = [site["value"] for site in sites]
        stopped = torch.autograd.grad(stopped_density(call, leaves, weights).sum(), values)
        alive = torch.autograd.grad(call.density(call.propose(leaves), weights.plates).sum(), values)
        torch.testing.assert_close(stopped, alive)
        assert all(gradient.abs().max() > 0.1 for gradient in stopped)

    def test_the_parameters_are_there_afterwards(self, pair):
        x, programs = torch.randn(5, 3), pair()
        module = Pair(*programs)
        module.start(x)
        before = dict(module.named_parameters())
        with module.opened() as (model, guide):
            call = Call(model, guide, (x,), {}, 4, module.plates)
            draws = call.draw()
            stopped_density(call, draws, call.weigh(draws))
            stopping_model(call).weigh(draws)
        after = dict(module.named_parameters())
        assert before.keys() == after.keys()
        assert all(after[name] is value and value.requires_grad for name, value in before.items())


@every_form
def test_a_model_is_stopped_and_its_draws_are_alive(pair):
    x, programs = torch.randn(5, 3), pair()
    module = Pair(*programs)
    module.start(x)
    call = called(*programs, x)
    draws = call.draw()
    weights, alive = observe_apart(call, draws)
    torch.testing.assert_close(weights.log_joint, alive)
    parameters = trained(module)
    total = torch.autograd.grad(call.weigh(draws).log_joint.sum(), parameters, allow_unused=True, retain_graph=True)
    apart = torch.autograd.grad(weights.log_joint.sum() + alive.sum(), parameters, allow_unused=True, retain_graph=True)
    torch.testing.assert_close(total, apart)
    of_draws = torch.autograd.grad(alive.sum(), parameters, allow_unused=True, retain_graph=True)
    of_model = torch.autograd.grad(weights.log_joint.sum(), parameters, allow_unused=True)
    for one, other in zip(of_draws, of_model, strict=True):
        assert one is None or other is None or not one.any() or not other.any()
    assert any(value is not None and value.any() for value in of_draws)
    assert any(value is not None and value.any() for value in of_model)


def test_under_svi_a_guide_with_a_constraint_is_stopped_too():
    """In Pyro's own store, where the parameter is not the module's but the store's."""
    model = LinearGaussian(data_dim=3, latent_dim=2)
    model.weight.data = torch.linalg.qr(model.weight.data)[0]  # orthogonal columns: the posterior has no correlations
    mean, covariance = model.posterior(torch.zeros(1, 3))
    units, _ = model.posterior(torch.eye(3))
    guide = Positive()
    with torch.no_grad():
        guide.linear.weight.copy_((units - mean).T)
        guide.linear.bias.copy_(mean[0])
    guide.scale = covariance[0, 0].sqrt()
    x = model.data(4)
    before = [value.clone() for value in guide.parameters()]
    SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), IWAE(3, "dreg")).step(x)
    torch.testing.assert_close([*guide.parameters()], before, rtol=0, atol=1e-12)
    SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), IWAE(3)).step(x)
    assert not torch.allclose(next(guide.parameters()), before[0])


def test_buffers_change_once_a_step():
    class Normalised(PyroModule):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, x):
            with pyro.plate("data", len(x), dim=-1):
                return pyro.sample("z", dist.Normal(self.linear(self.norm(x)), 1.0).to_event(1))

    def statistics(estimator):
        torch.manual_seed(0)
        guide = Normalised()
        module = IWAE(2, estimator)(LinearGaussian(), guide)
        x = torch.randn(6, 3)
        module.start(x)
        guide.norm.reset_running_stats()
        module(x).backward()
        return guide.norm.running_mean

    torch.testing.assert_close(statistics("dreg"), statistics("reparameterized"))
    assert statistics("dreg").abs().max() > 0.0


class TestRefusals:
    @pytest.mark.parametrize("hidden", [False, True], ids=["", "behind a head that begins at zero"])
    def test_a_guide_that_is_random_beyond_its_sites(self, hidden):
        network = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), *([nn.Linear(2, 2)] if hidden else []))
        if hidden:
            nn.init.zeros_(network[-1].weight)

        def guide(x):
            pyro.module("network", network)
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(network(x), 1.0).to_event(1))

        module = ELBO(4, estimator="stl")(LinearGaussian(), guide)
        with refused("guide", "nats", "eval()", 'estimator="reparameterized"'):
            module(torch.randn(5, 3))
        network.eval()
        assert module(torch.randn(5, 3)).isfinite()

    def test_a_guide_whose_parameters_are_out_of_sight(self):
        weight = torch.zeros(2, 3, requires_grad=True)

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(x @ weight.T, 1.0).to_event(1))

        for objective in (ELBO(estimator="stl"), IWAE(3, "dreg")):
            with refused("guide", "module", 'estimator="reparameterized"'):
                objective(LinearGaussian(), guide)(torch.randn(5, 3))
            with refused("guide", "module", 'estimator="reparameterized"'):
                objective.loss_and_grads(LinearGaussian(), guide, torch.randn(5, 3))

    def test_a_flow_that_cannot_be_inverted(self):
        flow = transforms.planar(2)

        def guide(x):
            pyro.module("flow", flow)
            with pyro.plate("data", len(x), dim=-1):
                base = dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)
                pyro.sample("z", dist.TransformedDistribution(base, [flow]))

        x = torch.randn(5, 3)
        with refused("'z'", 'estimator="reparameterized"', "flow"):
            ELBO(estimator="stl")(LinearGaussian(), guide)(x)
        assert ELBO()(LinearGaussian(), guide)(x).isfinite()
        with refused("'z'", 'estimator="reparameterized"', "flow"):
            VIMCO(3)(LinearGaussian(), guide)(x)

    @pytest.mark.parametrize("objective", [CUBO(), EUBO(), PIWAE(), TailAdaptive()], ids=lambda each: type(each).__name__)
    def test_a_model_whose_parameters_are_out_of_sight(self, objective):
        weight = torch.zeros(2, 3, requires_grad=True)

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ weight, 1.0).to_event(1), obs=x)

        _, guide = modules()
        with refused("model", "requires_grad_(False)"):
            objective(model, guide)(torch.randn(5, 3))
        with torch.no_grad():
            assert objective(model, guide)(torch.randn(5, 3)).isfinite()

    @pytest.mark.parametrize("form", ["delta", "factor"])
    def test_a_guide_with_parameters_where_nothing_is_drawn(self, form):
        """The density of a transformed draw, written by hand: its Jacobian is no score, and must not be stopped."""

        def guide(x):
            scale = pyro.param("scale", torch.ones(2)).abs()
            with pyro.plate("data", len(x), dim=-1):
                noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
                noise = pyro.sample("noise", noise, infer={"is_auxiliary": True})
                density = -scale.log().sum().expand(len(x))
                if form == "factor":
                    pyro.factor("jacobian", density, has_rsample=True)
                pyro.sample("z", dist.Delta(scale * noise, density if form == "delta" else 0.0, event_dim=1))

        for estimator in ("stl", "dreg"):
            with refused("pyro.factor", 'estimator="reparameterized"'):
                IWAE(3, estimator)(LinearGaussian(), guide)(torch.randn(5, 3))

    @pytest.mark.parametrize("objective", [IWAE(3, "resampled"), PIWAE(1, 3), TailAdaptive(3)])
    def test_a_model_that_is_random_beyond_its_sites(self, objective):
        class Dropping(LinearGaussian):
            def __init__(self):
                super().__init__()
                self.dropout = nn.Dropout(0.5)

            def mean(self, z):
                return super().mean(self.dropout(z))

        model, x = Dropping(), torch.randn(5, 3)
        guide = GaussianGuide(LinearGaussian())
        module = objective(model, guide)
        with refused("model", "nats", "eval()"):
            module(x)
        assert module.eval()(x).isfinite()
        with refused("model", "nats", "eval()"):
            compile(module.train(), x)

    def test_dreams_of_another_scale_are_refused_where_programs_are_recorded_too(self):
        model, guide = modules()

        def halved(x):
            with pyro.plate("data", len(x), dim=-1):
                model.observe(model.latent(), x / 2)

        x = torch.randn(5, 3)
        for objective in (WakeSleep(), ReweightedWakeSleep(2, insomnia=0.5)):
            with refused("'x'", "pyro.sample(..., obs=x)"):
                objective(halved, guide)(x)
            with refused("'x'", "pyro.sample(..., obs=x)"):
                compile(objective(halved, guide), x)


class BrokenError(Exception):
    """Of a network in the middle of a run."""


class TestTraces:
    """What a stopped run leaves behind: nothing."""

    objectives = pytest.mark.parametrize(
        "objective",
        [
            ELBO(estimator="stl"),
            IWAE(2, "dreg"),
            CUBO(2.0, 2),
            EUBO(posterior="simulated"),
            PIWAE(2, 2),
            TailAdaptive(2),
            WakeSleep(),
        ],
        ids=lambda each: type(each).__name__,
    )

    @objectives
    def test_pyros_store_keeps_its_entries(self, objective):
        torch.manual_seed(0)
        vae = VAE((3,), 2, likelihood=Normal, encoder=small, decoder=small)
        x = torch.randn(6, 3)
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), ELBO()).step(x)
        before = {name: id(value) for name, value in pyro.get_param_store().named_parameters()}
        assert len(before) == 8
        optimizer = pyro.optim.Adam({"lr": 0.01})
        SVI(vae.model, vae.guide, optimizer, objective).step(x)
        after = {name: id(value) for name, value in pyro.get_param_store().named_parameters()}
        assert after == before
        assert None not in optimizer.get_state()

    @objectives
    @pytest.mark.filterwarnings("ignore::pyrovae.engine.particles.ParticlesInTurnWarning")  # where it breaks in the look
    @pytest.mark.parametrize("svi", [False, True])
    def test_after_an_error_parameters_are_themselves(self, objective, svi):
        """Of a model that observes something else than x, or whose network breaks in a later run."""
        calls = []

        class Breaking(LinearGaussian):
            def mean(self, z):
                calls.append(1)
                if len(calls) > self.most:
                    raise BrokenError
                return super().mean(z)

        for most in range(2, 20, 2):
            calls.clear()
            pyro.clear_param_store()
            model = Breaking()
            model.most = 10**6
            guide, x = GaussianGuide(LinearGaussian()), torch.randn(4, 3)
            before = {id(value) for value in (*model.parameters(), *guide.parameters())}
            calls.clear()
            model.most = most
            with suppress(BrokenError):
                objective.loss_and_grads(model, guide, x) if svi else objective(model, guide)(x)
            after = [*model.parameters(), *guide.parameters()]
            assert {id(value) for value in after} == before
            assert all(isinstance(value, nn.Parameter) and value.requires_grad for value in after)
            stored = dict(pyro.get_param_store().named_parameters())
            assert all(value.requires_grad for value in stored.values())

    def test_other_threads_are_left_alone(self):
        """Meanwhile a network of somebody else's learns elsewhere."""
        other, seen = nn.Linear(3, 2), []
        model, guide = modules()

        def slow(x):
            thread = Thread(target=lambda: seen.append(other(x).requires_grad))
            thread.start()
            thread.join()
            return guide(x)

        IWAE(2, "dreg")(model, slow)(torch.randn(4, 3)).backward()
        assert len(seen) > 2
        assert all(seen)


def test_pyros_flows_forget_what_they_drew():
    """Their cache would give the density of the draws with its parameters alive."""
    torch.manual_seed(0)
    flow = transforms.affine_autoregressive(2, hidden_dims=[8])
    same = deepcopy(flow).requires_grad_(False)

    def base(x):
        return dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.TransformedDistribution(base(x), [flow]))

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.TransformedDistribution(base(x), [same]))
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)

    x = torch.randn(5, 3)
    for objective in (ELBO(3, estimator="stl"), IWAE(3, "dreg"), TailAdaptive(3), PIWAE(1, 3, True)):
        module = objective(model, guide)
        module.start(x)
        gradients = torch.autograd.grad(module(x), [*flow.parameters()], allow_unused=True)
        assert max(value.abs().max() for value in gradients if value is not None) < 1e-8
    module = IWAE(3)(model, guide)
    module.start(x)
    gradients = torch.autograd.grad(module(x), [*flow.parameters()], allow_unused=True)
    assert max(value.abs().max() for value in gradients if value is not None) > 0.1


def test_a_second_run_of_the_model_draws_nothing_anew():
    """What is missing of the data is drawn by the model, and what comes after it depends on the draw."""
    mask = torch.tensor([True, False, True, False])

    def model(x):
        shift = pyro.param("shift", torch.tensor(0.3))
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            y = pyro.sample("y", dist.Normal(z + shift, 1.0), obs=x, obs_mask=mask)
            pyro.sample("x", dist.Normal(y, 0.1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.1)), 1.0))

    x = torch.randn(4)
    for objective in (IWAE(3, "resampled"), PIWAE(1, 3)):
        module = objective(model, guide)
        module.start(x)
        assert module(x).isfinite()  # and is not refused for two densities


class TestTapped:
    @pytest.mark.parametrize("pair", [modules, chain, inner_plate, lambda: subsampled(modules())])
    def test_gradients_of_draws_are_multiplied(self, pair):
        """As by a hook on each draw that knows the factor beforehand, whatever the loss is multiplied by."""
        x, programs = torch.randn(6, 3), pair()
        call = called(*programs, x)
        parameters = trained(Pair(*programs))
        size = call.weigh(call.draw()).total.shape[1]
        factors = torch.rand(4, size)

        def gradient(tapped):
            pyro.set_rng_seed(1)
            draws = call.draw()
            if tapped:
                tap = ScaledGradientDraws(draws)
                weights = call.weigh(draws, at=tap.trace)
                surrogate = weights.log_joint.sum(0) + tap.scaling_term(factors, weights)
                assert torch.equal(tap.scaling_term(factors, weights), torch.zeros(size))
            else:
                copies = stop_values(draws)
                for name, site in copies.nodes.items():
                    if site["type"] == "sample" and draws.nodes[name]["value"].requires_grad:
                        site["value"] = hooked(draws.nodes[name]["value"], factors, draws.nodes[name]["fn"].event_dim)
                surrogate = call.weigh(draws, at=copies).log_joint.sum(0)
            return torch.autograd.grad(-3.0 * surrogate.sum(), parameters, allow_unused=True)

        torch.testing.assert_close(gradient(True), gradient(False), rtol=1e-10, atol=1e-10)

    def test_a_loss_that_is_multiplied_by_zero(self):
        x, (model, guide) = torch.randn(6, 3), modules()
        loss = IWAE(3, "dreg")(model, guide)(x)
        assert all(not gradient.any() for gradient in torch.autograd.grad(0.0 * loss, [*guide.parameters()]))


def subsampled(pair):
    both = Subsampled(*pair, 4)
    return both.model, both.guide


def hooked(value, factors, event_dim):
    copy = value.view_as(value)
    inner = [1] * (value.dim() - event_dim - 2)
    factor = factors.reshape(factors.shape[0], *inner, factors.shape[1])[(..., *[None] * event_dim)]
    copy.register_hook(lambda gradient: gradient * factor)
    return copy


class TestDrawsStopped:
    def test_no_gradient_flows_through_draws(self):
        call = called(*chain(), torch.randn(5, 3))
        draws = draw_stopped(call)
        assert not any(site["value"].requires_grad for site in draws.nodes.values() if site["type"] == "sample")
        pyro.set_rng_seed(1)
        stopped = draw_stopped(call).nodes["b"]["value"]
        pyro.set_rng_seed(1)
        assert torch.equal(stopped, call.draw().nodes["b"]["value"])

    @pytest.mark.parametrize("masked", [False, True])
    def test_a_delta_is_no_draw(self, masked):
        """A score function with a location at a point: the point keeps its gradient, which is all there is."""
        loc = nn.Parameter(torch.tensor([0.5, -0.5]))

        def guide(x):
            value = pyro.param("loc", loc)
            with pyro.plate("data", len(x), dim=-1):
                point = dist.Delta(value, event_dim=1)
                pyro.sample("z", point.mask(True) if masked else point)

        model, x = LinearGaussian(), torch.randn(5, 3)
        gradients = [
            torch.autograd.grad(ELBO(estimator=estimator)(model, guide)(x), loc)[0]
            for estimator in ("score_function", "reparameterized")
        ]
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().max() > 0.1
        for objective in (ReweightedWakeSleep(3), WakeSleep()):
            with refused("'z'", "Delta", type(objective).__name__):
                objective(model, guide)(x)


@pytest.mark.parametrize("pair", [modules, chain, inner_plate, lambda: (Mixture(), MixtureGuide(Mixture(), 0.7))])
def test_chosen_draws_are_those_of_the_index(pair):
    model, guide = pair()
    x = torch.randn(5) if isinstance(model, Mixture) else torch.randn(5, 3)
    call = called(model, guide, x)
    draws = call.draw()
    weights = call.weigh(draws)
    index = torch.tensor([3, 0, 2, 2, 1])
    single = Call(model, guide, (x,), {}, 1, weights.plates)
    trace = choose(draws, index, weights)
    joint = single.joint(single.observe(trace), trace, weights.plates)
    torch.testing.assert_close(joint[0], weights.log_joint[index, torch.arange(5)])


class TestDream:
    def test_statistics_of_batches_stay(self):
        """What the model dreams is no data of the user's."""

        class Normalised(LinearGaussian):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(3, affine=False)

            def mean(self, z):
                return self.norm(super().mean(z).flatten(0, -2)).reshape(*z.shape[:-1], 3)

        model, x = Normalised(), torch.randn(5, 3)
        guide = GaussianGuide(LinearGaussian())
        call = Call(model, guide, (x,), {}, 1, PLATES)
        before = model.norm.running_mean.clone()
        dream(call)
        assert torch.equal(model.norm.running_mean, before)
        call.weigh(call.draw())
        assert not torch.equal(model.norm.running_mean, before)

    def test_data_and_latents_are_the_models(self):
        model, guide = modules()
        x = torch.zeros(40_000, 3)
        awake, draws = dream(Call(model, guide, (x,), {}, 7, PLATES))
        dreamt, z = awake.args[0], draws.nodes["z"]["value"]
        assert awake.particles == 1
        assert dreamt.shape == x.shape
        assert z.shape == (1, 40_000, 2)
        assert_mean(z[0, :, 0] ** 2, 1.0, detects=0.06)
        residual = (dreamt - model.mean(z[0])).detach() / model.noise.detach()
        assert_mean(residual[:, 1], 0.0, detects=0.04)
        assert_mean(residual[:, 2] ** 2, 1.0, detects=0.06)
        expected = guide.proposal(dreamt).log_prob(z[0])
        torch.testing.assert_close(awake.weigh(draws).log_proposal[0], expected)

    def test_what_cannot_be_dreamt_is_refused(self):
        model, guide = modules()

        def doubled(x):
            with pyro.plate("data", len(x), dim=-1):
                model.observe(model.latent(), 2 * x)

        def with_factor(x):
            with pyro.plate("data", len(x), dim=-1):
                model.observe(model.latent(), x)
                pyro.factor("factor", torch.zeros(len(x)))

        deeper = WithPixelPlate()
        both = Subsampled(model, guide, 2)
        x = torch.randn(5, 3)
        for programs, words in [
            ((with_factor, guide), ["'x', 'factor'", "pyro.factor"]),
            ((doubled, guide), ["'x'", "pyro.sample(..., obs=x)"]),
            ((deeper, guide), ["'x'", "pyro.sample(..., obs=x)"]),
            ((both.model, both.guide), ["pyro.sample(..., obs=x)"]),
        ]:
            with refused(*words):
                dream(called(*programs, x))

    def test_a_guide_with_a_site_of_its_own_is_refused(self):
        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                shift = pyro.sample("shift", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"is_auxiliary": True})
                pyro.sample("z", dist.Normal(shift, 1.0).to_event(1))

        with refused("'shift'", "VIMCO"):
            dream(called(LinearGaussian(), guide, torch.randn(5, 3)))
