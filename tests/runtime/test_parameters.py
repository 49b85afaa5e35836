import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import measure
from programs import GaussianGuide, LinearGaussian, Tutorial, functions
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyrovae.engine.log_weights import log_weights
from pyrovae.networks import ConvDecoder, ConvEncoder
from pyrovae.objectives import ELBO, IWAE
from pyrovae.runtime.parameters import same_random_numbers
from pyrovae.vae import VAE

OTHERS = {"others.0.weight", "others.0.bias"}
FUNCTION_NAMES = {f"stored.param:{name}" for name in ("noise", "slope", "offset", "factor")} | OTHERS
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def pair():
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.5)


@pytest.fixture
def function_pair(pair):
    return functions(*pair)


@pytest.fixture
def x():
    return LinearGaussian().data(6)


def contents():
    """The user's store: names with their very tensors and values."""
    return {name: (id(value), value.tolist()) for name, value in pyro.get_param_store().named_parameters()}


def train(module, x, steps=3):
    module(x)
    optim = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(steps):
        optim.zero_grad()
        module(x).backward()
        optim.step()


class TestTheUsersStore:
    @pytest.mark.parametrize("kind", ["modules", "methods"])
    def test_modules_leave_it_alone(self, kind, pair, x):
        tutorial = Tutorial()
        model, guide = {"modules": pair, "methods": (tutorial.model, tutorial.guide)}[kind]
        for name in ("weight", "slope", "decoder$$$weight", "encoder.weight"):
            pyro.param(name, torch.full((2, 3), 0.1))
        pyro.param("noise", torch.tensor(7.0), constraint=dist.constraints.positive)
        before = contents()
        log_weights((model, guide), x)
        assert contents() == before
        train(ELBO()(model, guide), x)
        log_weights((model, guide), x)
        assert contents() == before

    def test_it_is_left_alone_where_a_program_fails(self, pair, x):
        pyro.param("noise", torch.tensor(7.0))
        before = contents()

        def failing(x):
            pyro.param("more", torch.tensor(1.0))
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            log_weights((failing, pair[1]), x)
        assert contents() == before

    def test_what_a_module_owns_is_never_taken_from_it(self, pair, x):
        pyro.param("weight", torch.full((3, 2), 7.0))
        pyro.param("noise", torch.tensor(7.0), constraint=dist.constraints.positive)
        model, guide = pair
        weights = log_weights((model, guide), x)
        z = weights.guide.nodes["z"]["value"]
        torch.testing.assert_close(weights.log_likelihood, dist.Normal(model.mean(z), 0.8).log_prob(x).sum(-1))

    def test_what_svi_trained_is_seen(self, function_pair, x):
        model, guide = function_pair
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        for _ in range(3):
            svi.step(x)
        assert_seen(log_weights((model, guide), x), pyro.param("offset"), pyro.param("slope"), pyro.param("noise"), x)

    def test_svi_and_torch_optimisers_take_turns_on_the_same_values(self, function_pair, x):
        model, guide = function_pair
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        svi.step(x)
        before = contents()
        module = ELBO()(model, guide)
        module(x)
        assert {name for name, _ in module.named_parameters()} == FUNCTION_NAMES
        assert torch.equal(module.stored["param:offset"], pyro.param("offset"))
        train(module, x)
        assert torch.equal(module.stored["param:offset"], pyro.param("offset"))
        assert contents() != before
        svi.step(x)
        assert_seen(log_weights((model, guide), x), pyro.param("offset"), pyro.param("slope"), pyro.param("noise"), x)


def assert_seen(weights, offset, slope, noise, x):
    torch.testing.assert_close(weights.guide.nodes["z"]["fn"].loc[0], x @ slope.T + offset)
    scale = weights.model.nodes["x"]["fn"].base_dist.scale
    torch.testing.assert_close(scale, noise.expand_as(scale))


class TestFunctions:
    def test_their_parameters_join_at_the_first_call(self, function_pair, x):
        module = ELBO()(*function_pair)
        assert not [*module.parameters()]
        module(x)
        assert {name for name, _ in module.named_parameters()} == FUNCTION_NAMES

    def test_every_parameter_is_trained_and_seen_afterwards(self, function_pair, x):
        model, guide = function_pair
        module = IWAE(3)(model, guide)
        module(x)
        before = {name: value.clone() for name, value in module.named_parameters()}
        train(module, x)
        for name, value in module.named_parameters():
            assert not torch.equal(value, before[name]), name
        weights = log_weights((model, guide), x)
        assert_seen(weights, pyro.param("offset"), pyro.param("slope"), module.stored["param:noise"].exp(), x)
        z = weights.guide.nodes["z"]["value"]
        decoded = z @ module.others[0].weight.T + module.others[0].bias
        torch.testing.assert_close(weights.model.nodes["x"]["fn"].mean, decoded)

    def test_two_objectives_on_one_pair_share_them(self, function_pair, x):
        one, other = ELBO()(*function_pair), IWAE(3)(*function_pair)
        one(x)
        other(x)
        assert {*one.parameters()} == {*other.parameters()}
        assert len([*one.parameters()]) == 6
        train(one, x)
        assert {*one.parameters()} == {*other.parameters()}
        assert measure(ELBO(), *function_pair, x).loss == measure(ELBO(), *function_pair, x).loss

    def test_a_handled_function_has_the_parameters_of_the_function(self, function_pair, x):
        model, guide = function_pair
        module = ELBO()(poutine.scale(model, scale=0.5), poutine.scale(guide, scale=0.5))
        train(module, x)
        weights = log_weights((model, guide), x)
        assert_seen(weights, pyro.param("offset"), pyro.param("slope"), module.stored["param:noise"].exp(), x)

    def test_pairs_that_use_the_same_names_share_as_everywhere_in_pyro(self, pair, x):
        first, second = (ELBO()(*functions(*pair)) for _ in range(2))
        for module in (first, second):
            module(x)
        assert {*first.stored.values()} == {*second.stored.values()}

    def test_a_cleared_store_leaves_a_module_its_own(self, pair, x):
        model, guide = functions(*pair)
        module = ELBO()(model, guide)
        train(module, x)
        trained = module.stored["param:offset"].clone()
        pyro.clear_param_store()
        module(x)
        assert torch.equal(module.stored["param:offset"], trained)

    def test_initial_values_are_drawn_once(self, pair, x):
        model, _ = pair

        def guide(x):
            loc = pyro.param("loc", lambda: torch.randn(2))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        first, second = (log_weights((model, guide), x).guide.nodes["z"]["fn"].mean for _ in range(2))
        assert torch.equal(first, second)

    def test_the_tensor_that_a_parameter_began_with_is_not_changed(self, pair, x):
        model, _ = pair
        start = torch.zeros(2)

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(pyro.param("loc", start), 1.0).to_event(1))

        train(ELBO()(model, guide), x)
        assert not torch.equal(pyro.param("loc"), start)
        assert torch.equal(start, torch.zeros(2))

    def test_any_name_will_do(self, pair, x):
        model, _ = pair

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                loc = pyro.param("values", torch.zeros(2)) + pyro.param("a.type", torch.zeros(2))
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        module = ELBO()(model, guide)
        train(module, x)
        assert {"param:values", "param:a:type"} == {*module.stored}

    def test_state_dicts_carry_them(self, pair, x):
        trained, fresh = (ELBO()(*functions(*pair)) for _ in range(2))
        train(trained, x)
        pyro.clear_param_store()
        fresh.start(x)
        fresh.load_state_dict(trained.state_dict())
        pyro.set_rng_seed(1)
        loss = trained(x)
        pyro.set_rng_seed(1)
        assert fresh(x) == loss


class TestMethods:
    """Pyro's tutorial VAE: ``model`` and ``guide`` are methods of one module, which call ``pyro.module``."""

    def test_their_parameters_are_those_of_the_module(self):
        tutorial = Tutorial()
        assert {*ELBO()(tutorial.model, tutorial.guide).parameters()} == {*tutorial.parameters()}

    def test_they_are_trained(self, x):
        tutorial = Tutorial()
        before = [parameter.clone() for parameter in tutorial.parameters()]
        train(ELBO()(tutorial.model, tutorial.guide), x)
        assert not any(map(torch.equal, before, tutorial.parameters()))

    def test_each_is_in_the_state_dict_once(self, x):
        tutorial = Tutorial()
        module = ELBO()(tutorial.model, tutorial.guide)
        module(x)
        assert len(module.state_dict()) == len(tutorial.state_dict())


class TestModules:
    def test_tied_weights_and_a_module_that_enters_itself(self, pair, x):
        model, _ = pair

        class Tied(PyroModule):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
                self.second.weight = self.first.weight

            def forward(self, x):
                pyro.module("guide", self)
                with pyro.plate("data", len(x), dim=-1):
                    pyro.sample("z", dist.Normal(self.second(self.first(x))[:, :2], 1.0).to_event(1))

        guide = Tied()
        module = ELBO()(model, guide)
        train(module, x)
        assert {*module.parameters()} == {*model.parameters(), *guide.parameters()}
        assert not contents()

    def test_two_of_a_class_do_not_share(self, x):
        vaes = [VAE((3,), latent_dim=2) for _ in range(2)]
        x = (x > 0).double()
        before = measure(ELBO(), vaes[1].model, vaes[1].guide, x).loss
        assert measure(ELBO(), vaes[0].model, vaes[0].guide, x).loss != before
        train(ELBO()(vaes[0].model, vaes[0].guide), x)
        assert measure(ELBO(), vaes[1].model, vaes[1].guide, x).loss == before

    def test_their_names_are_those_of_the_modules(self, pair):
        module = ELBO()(*pair)
        names = {name for name, _ in module.named_parameters()}
        of_model = {"model.weight", "model.bias", "model.noise_unconstrained"}
        assert names == of_model | {"guide.slope", "guide.offset", "guide.factor"}

    def test_frozen_parameters_stay_frozen(self, pair, x):
        """Pyro's store sets ``requires_grad`` on a parameter that it enters."""
        model, guide = pair
        model.requires_grad_(False)
        before = [parameter.clone() for parameter in model.parameters()]
        train(ELBO()(model, guide), x)
        log_weights((model, guide), x)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert all(map(torch.equal, before, model.parameters()))
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(parameter.grad is not None for parameter in guide.parameters())

    def test_a_frozen_network_gives_no_warning(self, x):
        vae = VAE((3,), latent_dim=2)
        vae.model.requires_grad_(False)
        train(ELBO()(vae.model, vae.guide), (x > 0).double())
        assert not any(parameter.requires_grad for parameter in vae.model.parameters())

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_parameters_of_any_layout_are_trained(self, layout):
        """Pyro's store holds a copy of a parameter that is not contiguous, and ``SVI`` trains the copy."""
        vae = VAE((2, 4, 4), 2, encoder=ConvEncoder, decoder=ConvDecoder).to(memory_format=layout)
        x = torch.bernoulli(torch.full((5, 2, 4, 4), 0.5))
        module = ELBO()(vae.model, vae.guide)
        before = [parameter.clone() for parameter in vae.parameters()]
        train(module, x)
        assert {*module.parameters()} == {*vae.parameters()}
        assert not any(map(torch.equal, before, vae.parameters()))

    def test_a_function_may_use_the_name_of_a_modules_parameter(self, pair, x):
        model, _ = pair

        def guide(x):
            loc = pyro.param("weight", torch.zeros(2))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        module = ELBO()(model, guide)
        before = model.weight.clone()
        train(module, x)
        assert not torch.equal(model.weight, before)
        assert module.stored["param:weight"].norm() > 0.0
        assert torch.equal(log_weights((model, guide), x).guide.nodes["z"]["fn"].mean[0, 0], module.stored["param:weight"])

    def test_a_module_that_a_function_calls_is_trained(self, pair, x):
        model, _ = pair
        network = nn.Linear(3, 2)

        def proposal(x):
            pyro.module("network", network)
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(network(x), 1.0).to_event(1))

        module = ELBO()(model, proposal)
        train(module, x)
        assert {*network.parameters()} <= {*module.parameters()}
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_a_module_that_pyro_is_not_told_of_is_not_trained(self, pair, x):
        model, _ = pair
        features = nn.Linear(3, 2)

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(features(x), 1.0).to_event(1))

        module = ELBO()(model, guide)
        module(x)
        assert {*module.parameters()} == {*model.parameters()}


def test_same_random_numbers():
    before = torch.get_rng_state()
    with same_random_numbers(torch.zeros(1)):
        torch.randn(3)
    assert torch.equal(torch.get_rng_state(), before)
