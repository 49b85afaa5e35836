"""K particles are K runs of the programs: how they run is chosen by looking, and what comes out is the same."""

import pickle
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from checks import default, flat, members, slow_but, warned
from programs import LinearGaussian
from pyro import poutine
from torch import nn
from torch.nn.utils import spectral_norm

import pyrovae
import pyrovae.objectives
from pyrovae import annealed_importance_sampling, bound_curve, log_likelihood
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.pair import Pair
from pyrovae.engine.particles import ParticlesInTurnWarning
from pyrovae.engine.plates import Plates
from pyrovae.engine.validation import find_plates
from pyrovae.evaluation import gradient_statistics, kl_decomposition, posterior_means, reconstructions
from pyrovae.objectives import ELBO, IWAE, SELBO, Objective

pytestmark = pytest.mark.usefixtures("float64")
B, L, D = 4, 2, 3
classes = members(pyrovae.objectives, Objective)


class Pairs(nn.Module):
    """A conditional pair in two styles: it joins latent and context as in a single run, or so that it broadcasts."""

    def __init__(self, broadcasts, norm=False, dropout=0.0, zero=False):
        super().__init__()
        torch.manual_seed(0)
        self.broadcasts = broadcasts
        self.encoder = nn.Sequential(nn.Linear(D, 5), nn.Dropout(dropout), nn.Tanh(), nn.Linear(5, 2 * L))
        self.decoder = nn.Sequential(nn.Linear(L + D, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh(), nn.Linear(5, D))
        if zero:
            nn.init.zeros_(self.decoder[-1].weight)
            nn.init.zeros_(self.decoder[-1].bias)

    def model(self, x):
        pyro.module("pairs", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            c = x.sign() if not self.broadcasts else x.sign().expand(*z.shape[:-1], -1)
            logits = self.decoder(torch.cat([z, c], -1))
            pyro.sample("x", dist.Normal(F.softmax(logits, -1 if self.broadcasts else 1), 0.7).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("pairs", self)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


@pytest.fixture
def x():
    return torch.randn(B, D)


def ways(pair, x):
    return find_plates(pair, x).particles


class TestTheChoice:
    def test_a_broadcasting_program_runs_together(self, x):
        assert ways(Pairs(broadcasts=True), x) == "together"

    def test_one_written_for_a_single_run_is_mapped(self, x):
        assert ways(Pairs(broadcasts=False), x) == "mapped"

    def test_values_that_particles_spread_out_are_not_together(self, x):
        """A guide that moves a plate's dimension behind those of an event, and so takes the particles for another plate."""

        def switches(probs):
            with pyro.plate("switches", 2, dim=-2):
                return pyro.sample("on", dist.Bernoulli(probs)).movedim(-2, -1)

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                on = switches(torch.full((2, 1), 0.5))
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal((on * z).sum(-1), 1.0), obs=x[:, 0])

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Normal(switches(x[:, :2].T.sigmoid()), 1.0).to_event(1))

        assert ways((model, guide), x) == "mapped"
        assert log_weights((model, guide), x, num_samples=3).total.shape == (3, B)

    @pytest.mark.parametrize("broadcasts", [True, False])
    def test_a_head_that_begins_at_zero_hides_nothing(self, broadcasts, x):
        """Whatever z is, the output is the same, and a softmax over the wrong axis of equal numbers is not seen."""
        pair = Pairs(broadcasts, zero=True)
        pair.decoder[0] = nn.Linear(L + D, 5)
        kept = pair.decoder[-1].weight

        def model(x):
            pyro.module("pairs", pair)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
                h = z @ pair.decoder[-1].weight[:, :L].T
                loc = F.softmax(h, -1 if broadcasts else 1) * (B if broadcasts else 1)
                pyro.sample("x", dist.Normal(loc, 0.7).to_event(1), obs=x)

        square = torch.randn(D, D)
        assert find_plates((model, pair.guide), square).particles == ("together" if broadcasts else "mapped")
        assert not kept.any(), "what was moved apart is put back"

    def test_dropout_is_no_reason(self, x):
        assert ways(Pairs(broadcasts=True, dropout=0.5), x) == "together"

    def test_it_leaves_no_trace(self, x):
        pair = Pairs(broadcasts=False, norm=True, dropout=0.5)
        before = {name: value.clone() for name, value in pair.state_dict().items()}
        state = torch.get_rng_state()
        ways(pair, x)
        assert torch.equal(torch.get_rng_state(), state)
        assert pair.training
        for name, value in pair.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_what_no_way_at_once_fits_runs_in_turn_and_says_so(self, x):
        model, guide = looking(Pairs(broadcasts=True))
        assert find_plates((model, guide), x).particles == "in turn"
        with warned(3, "together", "mapped", category=ParticlesInTurnWarning):
            log_weights((model, guide), x, num_samples=3)

    def test_one_particle_needs_no_warning(self, x):
        model, guide = looking(Pairs(broadcasts=True))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log_weights((model, guide), x, num_samples=1)


def looking(pair):
    """A pair whose model branches on the numbers of its draws."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            scale = 1.0 if z.sum() > 0 else 2.0
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(x.shape), scale).to_event(1), obs=x)

    return model, pair.guide


class TestAnotherShape:
    """A program whose axes are named from the left where the batch is as large as a parameter, and else from the right."""

    def model(self, x):
        weight = pyro.param("weight", lambda: torch.randn(L, D))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            loc = (z @ weight).cumsum(1 if len(x) == L else -1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :L], 1.0).to_event(1))

    def test_is_looked_at_again(self):
        pair = Pair(self.model, self.guide)
        pair.start(torch.randn(5, D))
        assert pair.plates is not None
        assert pair.plates.particles == "together"
        assert not pair.ready(torch.randn(6, D)), "a size like any other"
        assert pair.ready(torch.randn(L, D))
        assert pair.plates.particles == "mapped"
        assert not pair.ready(torch.randn(L, D))


@pytest.mark.parametrize("cls", classes, ids=lambda cls: cls.__name__)
def test_every_objective_is_that_of_the_broadcasting_style(cls, x):
    """The same random numbers, the same value, the same gradient."""
    found = []
    for broadcasts in (True, False):
        pyro.clear_param_store()
        pair = Pairs(broadcasts)
        module = default(cls)(pair.model, pair.guide)
        module.start(x)
        assert module.plates.particles == ("together" if broadcasts else "mapped")
        pyro.set_rng_seed(1)
        measured = module.measure(x)
        found.append((measured.bound, measured.reconstruction, measured.kl, flat(measured.loss, [*pair.parameters()])))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


estimates = {
    "log_likelihood": lambda pair, x: log_likelihood(pair, x, 60, num_particles=(1, 5)).log_p,
    "log_likelihood, compiled": lambda pair, x: log_likelihood(pair, x, 60, compile=True, num_particles=(1, 5)).log_p,
    "log_likelihood, mixture": lambda pair, x: log_likelihood(pair, x, 60, proposal="mixture").log_p,
    "bound_curve": lambda pair, x: bound_curve(pair, x, (1, 5), num_samples=20).log_likelihood.log_p,
    "annealing": lambda pair, x: annealed_importance_sampling(pair, x, 3, 4, steps=2).log_weights,
    "annealing from the guide": lambda pair, x: (
        annealed_importance_sampling(pair, x, 3, 2, start="guide", steps=1).log_weights
    ),
    "reconstructions": lambda pair, x: reconstructions(pair, x, num_samples=3),
    "posterior_means": lambda pair, x: posterior_means(pair, x),
    "kl_decomposition": lambda pair, x: kl_decomposition(pair, x, 3).kl,
    "gradient_statistics": lambda pair, x: next(iter(gradient_statistics(pair, x, IWAE(3), num_samples=4).mean.values())),
}


@pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
@pytest.mark.parametrize("name", slow_but(lambda name: name != "annealing", estimates))
def test_every_estimate_is_that_of_the_broadcasting_style(name, x):
    """The same random numbers, the same answer; compiled or not."""
    found = []
    for broadcasts in (True, False):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        pair = Pairs(broadcasts)
        found.append(estimates[name]((pair.model, pair.guide), x))
    torch.testing.assert_close(*(torch.as_tensor(value) for value in found), rtol=1e-7, atol=1e-9)


def weights_in_turn(pair, x, particles, seed=1):
    """The log weights of single runs, one after another."""
    plates = Plates("data", 1, particles="in turn")
    pyro.set_rng_seed(seed)
    return log_weights(pair, x, num_samples=particles, plates=plates)


@pytest.mark.parametrize("particles", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_estimates_agree_whatever_the_way(particles, x):
    """Means over many draws of the log weight, of 10 copies of the data: a z-test at level 1e-5 of two ways."""
    pair, many = Pairs(broadcasts=False), x.repeat(10, 1)
    mapped = torch.cat([log_weights(pair, many, num_samples=particles).total.unflatten(1, (10, -1)) for _ in range(30)], 1)
    in_turn = [weights_in_turn(pair, many, particles, seed=k).total.unflatten(1, (10, -1)) for k in range(30)]
    mapped, in_turn = mapped, torch.cat(in_turn, 1)
    difference = mapped.mean((0, 1)) - in_turn.mean((0, 1))
    error = ((mapped.var((0, 1)) + in_turn.var((0, 1))) / (300 * particles)).sqrt()
    assert (difference.abs() < 4.9 * error).all()


def test_dropout_differs_from_particle_to_particle(x):
    """Each run has a mask of its own, as each has a draw."""
    pair = Pairs(broadcasts=False, dropout=0.5)
    proposals = log_weights(pair, x, num_samples=50).guide.nodes["z"]["fn"].mean
    assert (proposals.std(0) > 0).all()
    pair.eval()
    proposals = log_weights(pair, x, num_samples=50).guide.nodes["z"]["fn"].mean
    torch.testing.assert_close(proposals, proposals[:1].expand_as(proposals))


def test_batch_normalisation_counts_every_run(x):
    """In training the statistics are of one run's batch, and the running ones move once a run."""
    pair = Pairs(broadcasts=False, norm=True)
    fresh = Pairs(broadcasts=False, norm=True)
    plates = find_plates(pair, x)
    assert plates.particles == "mapped"
    weights = log_weights(pair, x, num_samples=3, plates=plates)
    norm = pair.decoder[1]
    for k in range(3):
        values = {"z": weights.guide.nodes["z"]["value"][k]}
        trace = poutine.trace(poutine.condition(fresh.model, data=values)).get_trace(x)
        trace.compute_log_prob()
        torch.testing.assert_close(trace.nodes["x"]["log_prob"], weights.log_likelihood[k])
    torch.testing.assert_close(norm.running_mean, fresh.decoder[1].running_mean)
    torch.testing.assert_close(norm.running_var, fresh.decoder[1].running_var)


@pytest.mark.filterwarnings("ignore::pyrovae.engine.particles.ParticlesInTurnWarning")
def test_batch_normalisation_that_weighs_all_batches_alike_counts_every_run(x):
    pair, fresh = (Pairs(broadcasts=False, norm=True) for _ in range(2))
    for each in (pair, fresh):
        each.decoder[1].momentum = None
    weights = log_weights(pair, x, num_samples=3)
    for k in range(3):
        poutine.condition(fresh.model, data={"z": weights.guide.nodes["z"]["value"][k]})(x)
    assert pair.decoder[1].num_batches_tracked == 3
    torch.testing.assert_close(pair.decoder[1].running_mean, fresh.decoder[1].running_mean)
    torch.testing.assert_close(pair.decoder[1].running_var, fresh.decoder[1].running_var)


@pytest.mark.parametrize("calls", [0, 100])
def test_what_a_network_keeps_of_its_calls_does_not_decide_the_way(x, calls):
    """One step of the power method a call, whose vectors are far from settled at first."""
    pair = Pairs(broadcasts=True)
    for layer in [each for each in pair.modules() if isinstance(each, nn.Linear)]:
        spectral_norm(layer)
        for _ in range(calls):
            layer(torch.zeros(layer.in_features))
    assert find_plates(pair, x).particles == "together"


def test_a_tensor_to_be_filled_in_place_is_not_read_by_accident(x):
    """What ``normal_`` returns is drawn for each particle; who reads the tensor itself reads NaN, and runs in turn."""

    def guide(returned):
        def program(x):
            with pyro.plate("data", len(x)):
                noise = torch.empty(len(x), L)
                drawn = noise.normal_()
                loc = x[:, :L] + 0.0 * F.softmax(drawn if returned else noise, dim=1)
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

        return program

    model = Pairs(broadcasts=False).model
    assert find_plates((model, guide(True)), x).particles == "mapped"
    assert find_plates((model, guide(False)), x).particles == "in turn"


def test_a_subsample_is_that_of_all_particles():
    model = LinearGaussian()
    encoder = Pairs(broadcasts=True).encoder

    def subsampled(x):
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            z = model.latent()
            scale = 1.0 if z.sum() > 0 else 1.5
            pyro.sample("x", dist.Normal(model.mean(z), scale).to_event(1), obs=x[rows])

    def proposal(x):
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            loc, raw = encoder(x[rows]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    x = model.data(9)
    with warned(4, "together", "Python", "mapped", category=ParticlesInTurnWarning):
        weights = log_weights((subsampled, proposal), x, num_samples=4)
    assert weights.scale == 3.0
    assert weights.total.shape == (4, 3)
    locs = weights.guide.nodes["z"]["fn"].mean
    torch.testing.assert_close(locs, locs[:1].expand_as(locs))


class TestOutcomesThatAreGoneThrough:
    """SELBO sums over a discrete site, whose outcomes the particles take in turn."""

    def pair(self, broadcasts):
        torch.manual_seed(0)
        classify, decode = nn.Linear(D, 3), nn.Linear(3 + D, D)

        def model(x):
            pyro.module("decode", decode)
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(3) / 3))
                c = x.sign().expand(*y.shape[:-1], -1) if broadcasts else x.sign()
                pyro.sample("x", dist.Normal(decode(torch.cat([y, c], -1)), 1.0).to_event(1), obs=x)

        def guide(x):
            pyro.module("classify", classify)
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.OneHotCategorical(logits=classify(x)))

        return model, guide, [*classify.parameters(), *decode.parameters()]

    def test_the_sum_is_exact_in_both_styles(self, x):
        found = []
        for broadcasts in (True, False):
            pyro.clear_param_store()
            model, guide, parameters = self.pair(broadcasts)
            module = SELBO(6)(model, guide)
            module.start(x)
            assert module.plates.particles == ("together" if broadcasts else "mapped")
            measured = module.measure(x)
            found.append((measured.bound, flat(measured.loss, parameters)))
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_numbers_that_make_no_difference_do_not_hinder_a_recording(unfused):
    """The number of trials of an observed multinomial is read off the data, and the density does not need it."""
    torch.manual_seed(0)
    decoder = nn.Linear(L, D)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), L), 1.0).to_event(1))
            pyro.sample("x", dist.Multinomial(int(x.sum(-1).max()), F.softmax(decoder(z), dim=1)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :L], 1.0).to_event(1))

    batches = [torch.randint(1, 9, (B, D)).double() for _ in range(2)]
    eager = IWAE(3)(model, guide)
    compiled = pyrovae.compile(IWAE(3)(model, guide), batches[0])
    for batch in batches:
        losses = []
        for loss in (eager, compiled):
            pyro.set_rng_seed(1)
            losses.append(loss(batch))
        torch.testing.assert_close(*losses)


def test_numbers_that_make_a_difference_do():
    """A length that is read off the data and at which they are cut cannot be recorded, although it cuts nothing here."""

    def model(x):
        length = int(x.isfinite().sum(-1).max())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            loc = pyro.param("weight", torch.ones(())) * z
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x[:, :length].sum(-1))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1), 1.0))

    with pytest.warns(NotCompiledWarning):
        pyrovae.compile(ELBO()(model, guide), torch.randn(B, D))


def test_plates_can_be_pickled():
    plates = Plates("data", 1, "in turn", "why", 3)
    assert pickle.loads(pickle.dumps(plates)) == plates


class Sealed(dist.TorchDistribution):
    """A normal distribution that does not keep what it was built from, so that particles cannot be mapped."""

    arg_constraints = {}  # noqa: RUF012
    support = dist.constraints.real
    has_rsample = True

    def __init__(self, halved):
        self._normal = dist.Normal(2.0 * halved, 1.0)
        super().__init__(self._normal.batch_shape, validate_args=False)

    def rsample(self, sample_shape=()):
        return self._normal.rsample(sample_shape)

    def log_prob(self, value):
        return self._normal.log_prob(value)

    def expand(self, batch_shape, _instance=None):
        return Sealed(self._normal.loc.expand(batch_shape) / 2.0)


def sealed(x):
    """A pair whose model names an axis from the left, with a likelihood that cannot be taken apart."""
    torch.manual_seed(0)
    decoder = nn.Linear(L, D)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", Sealed(F.softmax(decoder(z), dim=1)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("slope", torch.ones(())) * x[:, :L], 1.0).to_event(1))

    return model, guide


@pytest.mark.filterwarnings("ignore::pyrovae.engine.particles.ParticlesInTurnWarning")
class TestInTurn:
    def test_a_recording_is_the_same(self, x, unfused):
        found = []
        for record in (False, True):
            pyro.clear_param_store()
            module = IWAE(3)(*sealed(x))
            module.start(x)
            assert module.plates.particles == "in turn"
            loss = pyrovae.compile(module, x) if record else module
            pyro.set_rng_seed(1)
            value = loss(x)
            found.append((value.detach(), flat(value, [*module.parameters()])))
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)

    @pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
    def test_a_likelihood_is_the_same(self, x, unfused):
        found = [log_likelihood(sealed(x), x, 40, compile=record, num_particles=(1,)).log_p for record in (False, True)]
        torch.testing.assert_close(*map(torch.from_numpy, found), rtol=1e-9, atol=1e-9)

    def test_an_analytic_divergence_is_that_of_the_runs(self, x):
        """Of N(m, 1) from N(0, 1), half the square of m in each dimension."""
        module = ELBO(3, analytic_kl=True)(*sealed(x))
        module.start(x)
        torch.testing.assert_close(module.measure(x).kl, 0.5 * x[:, :L].square().sum(-1), rtol=1e-9, atol=1e-9)


@pytest.mark.cuda
@pytest.mark.parametrize("record", [False, True])
def test_on_cuda_the_styles_agree(record, x):
    found = []
    for broadcasts in (True, False):
        pyro.clear_param_store()
        pair = Pairs(broadcasts).cuda()
        module = IWAE(3)(pair.model, pair.guide)
        module.start(x.cuda())
        loss = pyrovae.compile(module, x.cuda()) if record else module
        pyro.set_rng_seed(1)
        value = loss(x.cuda())
        found.append((value.detach(), flat(value, [*pair.parameters()])))
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


class TestWhatALookMustNotMiss:
    """Programs whose axis named from the left is out of sight when they are first seen, and what a look must not change."""

    def pair(self, mixed, slope=lambda x: x):
        def model(x, mix=True):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(D), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(mixed(z, mix), 1.0).to_event(1), obs=slope(x))

        def guide(x, mix=True):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

        return model, guide

    def test_a_gate_that_begins_closed(self, x):
        gate = nn.Parameter(torch.zeros(()))
        module = nn.Module()
        module.gate = gate

        def mixed(z, mix):
            pyro.module("gated", module)
            return z + gate * z.softmax(1)

        assert find_plates(self.pair(mixed), x).particles == "mapped"
        assert gate.item() == 0.0

    def test_svi_looks_again_too(self, x):
        """What is reported for the second kind of arguments is what a new objective says."""
        model, guide = self.pair(lambda z, mix: z.softmax(1) if mix else z)
        used, fresh = IWAE(3), IWAE(3)
        found = []
        for objective, kinds in ((used, (False, True)), (fresh, (True,))):
            for mix in kinds:
                pyro.set_rng_seed(1)
                loss = objective.loss(model, guide, x, mix=mix)
            found.append(loss)
        assert found[0] == pytest.approx(found[1], rel=1e-12)

    def test_an_argument_that_opens_it(self, x):
        pair = Pair(*self.pair(lambda z, mix: z.softmax(1) if mix else z))
        pair.ready(x, mix=False)
        assert pair.plates is not None
        assert pair.plates.particles == "together"
        assert pair.ready(x, mix=True)
        assert pair.plates.particles == "mapped"
        assert not pair.ready(x, mix=False)
        assert pair.plates.particles == "together"

    def test_a_mode_that_opens_it(self, x):
        module = nn.Dropout()
        model, guide = self.pair(lambda z, mix: z.softmax(1) if module.training else z)

        class Program(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = module

            def forward(self, x):
                return model(x)

        pair = Pair(Program(), lambda x: guide(x)).eval()
        pair.ready(x)
        assert pair.plates is not None
        assert pair.plates.particles == "together"
        pair.train()
        pair.ready(x)
        assert pair.plates.particles == "mapped"

    def test_a_buffer_that_is_reassigned_stays_what_it_was(self):
        class Averaging(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("average", torch.zeros(D))

            def forward(self, x):
                self.average = 0.9 * self.average + 0.1 * x.mean(0)
                return x + self.average

        averaging = Averaging()
        before = averaging.average
        model, guide = self.pair(lambda z, mix: z, slope=averaging)
        find_plates((model, guide), torch.ones(B, D))
        assert averaging.average is before
        assert not before.any()

    def test_attention_with_dropout_is_no_reason(self, x):
        layer = nn.TransformerEncoderLayer(D, 1, 4, dropout=0.3, batch_first=True)
        assert find_plates(self.pair(lambda z, mix: z, slope=lambda x: layer(x[:, None])[:, 0]), x).particles == "together"

    def test_numbers_that_the_program_does_not_bear_to_be_moved(self, x):
        """Moved apart, the zeros of a covariance are no longer symmetric; the look does without."""
        covariance = nn.Parameter(torch.eye(D))
        module = nn.Module()
        module.covariance = covariance

        def model(x):
            pyro.module("covariance", module)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.MultivariateNormal(x.new_zeros(D), covariance))
                if not torch.equal(covariance, covariance.mT):
                    raise ValueError("not symmetric")
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x, 1.0).to_event(1))

        assert find_plates((model, guide), x).particles == "together"
        assert torch.equal(covariance, torch.eye(D))
