"""Every gradient estimator against the gradient of the exact bound, by quadrature; what they promise beside that."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import POWER, QUANTILE, assert_mean, assert_mean_gradient, flat, measure
from programs import PLATES, GaussianGuide, LinearGaussian, Mixture, MixtureGuide, drawing, functions
from pyro.infer import ReweightedWakeSleep as StockReweightedWakeSleep
from quadrature import Grid

from pyrovae.engine.log_weights import log_weights
from pyrovae.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    EUBO,
    IWAE,
    MIWAE,
    PIWAE,
    VIMCO,
    Renyi,
    ReweightedWakeSleep,
    TailAdaptive,
    ThermodynamicELBO,
    WakeSleep,
)

pytestmark = pytest.mark.usefixtures("float64")

bounds = {
    "ELBO(3)": (partial(ELBO, 3), 1),
    "IWAE(2)": (partial(IWAE, 2), 2),
    "IWAE(3)": (partial(IWAE, 3), 3),
    "MIWAE(2, 3)": (partial(MIWAE, 2, 3), 3),
    "MIWAE(3, 2)": (partial(MIWAE, 3, 2), 2),
    "CIWAE(0.3, 3)": (partial(CIWAE, 0.3, 3), 3),
    "Renyi(0.4, 3)": (partial(Renyi, 0.4, 3), 3),
    "ThermodynamicELBO(3)": (partial(ThermodynamicELBO, 3, 3, 0.1), 3),
    "CUBO(2, 2)": (partial(CUBO, 2.0, 2), 2),
}
"""With the number of particles whose expectation is the bound's: M groups, or K terms of a sum, leave it as it is."""
unbiased = ["reparameterized", "score_function", "dreg", "resampled"]
left_out = {
    ("ThermodynamicELBO(3)", "resampled"),  # refused
    ("CUBO(2, 2)", "score_function"),  # without a baseline it takes too many draws to see anything
}
twins = {"IWAE(2)", "MIWAE(3, 2)"}
"""With other numbers than those of bounds that are here too."""
cases = [
    pytest.param(*(make, particles, estimator), id=f"{name}-{estimator}", marks=[pytest.mark.slow] * (name in twins))
    for name, (make, particles) in bounds.items()
    for estimator in unbiased
    if (name, estimator) not in left_out
]


@pytest.fixture
def pair():
    model = LinearGaussian(data_dim=2, latent_dim=1)
    return model, GaussianGuide(model, shift=0.4, widen=1.3, diagonal=True), torch.tensor([[0.6, -0.8]])


def formula(objective, log_w):
    """The bound as the function of K log weights that its expectation is taken of."""
    return {ELBO: ELBO(1), MIWAE: IWAE(len(log_w))}.get(type(objective), objective).value(log_w)


@pytest.mark.parametrize(("make", "particles", "estimator"), cases)
def test_the_mean_gradient_is_that_of_the_exact_bound(make, particles, estimator, pair):
    model, guide, x = pair
    objective = make(estimator=estimator)
    grid = Grid(model, guide, x, particles)
    value = grid.mean(formula(objective, grid.log_weights()))
    parameters = [*model.parameters(), *guide.parameters()]
    expected = flat(-value, parameters)
    if objective.sign < 0:  # lowered, and by the guide alone
        of_model = sum(parameter.numel() for parameter in model.parameters())
        expected = torch.cat([torch.zeros(of_model), -expected[of_model:]])
    assert_mean_gradient(objective, pair, expected)


@pytest.mark.parametrize(("make", "particles"), bounds.values(), ids=bounds.keys())
def test_sticking_the_landing_leaves_out_the_score_and_only_the_elbo_may(make, particles, pair):
    """Its mean is that of the bound with the density's parameters stopped: biased, but for the ELBO."""
    model, guide, x = pair
    objective = make(estimator="stl")
    parameters = [*model.parameters(), *guide.parameters()]
    of_model = sum(parameter.numel() for parameter in model.parameters())

    def value(stopped):
        grid = Grid(model, guide, x, particles)
        return grid.mean(formula(objective, grid.log_weights(stopped)))

    stopped, full = value(True), value(False)
    expected, true = flat(-stopped, parameters), flat(-full, parameters)
    assert torch.allclose(expected[:of_model], true[:of_model])
    assert torch.allclose(expected, true) == (type(objective) is ELBO)
    if objective.sign < 0:
        expected = torch.cat([torch.zeros(of_model), -expected[of_model:]])
    assert_mean_gradient(objective, pair, expected)


landing = {
    "ELBO-stl": ELBO(3, estimator="stl"),
    "IWAE-stl": IWAE(3, "stl"),
    **{f"{name}-dreg": make(estimator="dreg") for name, (make, _) in bounds.items()},
    "PIWAE-dreg": PIWAE(2, 3, doubly_reparameterized=True),
    "TailAdaptive": TailAdaptive(4),
}


@pytest.mark.parametrize("form", ["modules", "functions"])
@pytest.mark.parametrize("objective", landing.values(), ids=landing.keys())
def test_at_the_exact_posterior_the_guides_gradient_is_zero(objective, form):
    model = LinearGaussian()
    guide, x = GaussianGuide(model), model.data(5)
    if form == "functions":
        model, guide = functions(model, guide)
    module = objective(model, guide)
    module.start(x)
    module(x).backward()
    gradients = {name.rpartition(".")[2].rpartition(":")[2]: value.grad for name, value in module.named_parameters()}
    for name in ("slope", "offset", "factor"):
        assert gradients[name].abs().max() < 1e-12
    if objective.sign > 0:
        assert gradients["weight"].abs().max() > 0.1
    plain = ELBO(3)(model, guide)
    plain.start(x)
    plain(x).backward()
    assert max(value.grad.abs().max() for value in plain.parameters()) > 0.1


@pytest.mark.parametrize(
    ("make", "factors"),
    [
        (partial(IWAE, 4), lambda s: s**2),
        (partial(Renyi, 0.3, 4), lambda s: 0.3 * s + 0.7 * s**2),
        (partial(CIWAE, 0.3, 4), lambda s: 0.3 / 4 + 0.7 * s**2),
        (partial(CUBO, 2.0, 4), lambda s: -(2 * s**2 - s)),
    ],
    ids=["IWAE", "Renyi", "CIWAE", "CUBO"],
)
def test_dreg_is_the_formula_of_tucker_draw_by_draw(make, factors):
    """The guide's gradient, with its density stopped and each draw's path counted by a factor."""
    model = LinearGaussian()
    guide, x = GaussianGuide(model, shift=0.3, widen=1.3), model.data(3)
    objective = make(estimator="dreg")
    parameters = [*guide.parameters()]
    gradients = flat(measure(objective, model, guide, x).loss, parameters)
    pyro.set_rng_seed(1)
    q = guide.proposal(x)
    z = q.expand((4, 3)).rsample()
    stopped = dist.MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach())
    likelihood = dist.Normal(model.mean(z), model.noise).log_prob(x).sum(-1)
    log_w = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + likelihood - stopped.log_prob(z)
    power = getattr(objective, "power", 1.0)
    s = (power * log_w).softmax(0).detach()
    torch.testing.assert_close(gradients, flat(-(factors(s) * log_w).sum(), parameters), rtol=0, atol=1e-10)


def test_the_resampled_particle_is_drawn_with_its_weight():
    """A parameter for each datum, whose gradient is the draw that comes back, and these are counted."""
    values, number = torch.tensor([[0.5], [1.0], [-1.0], [0.0]]), 60_000
    rows, locs = torch.zeros(2, number, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("each", z.detach() * pyro.param("rows", rows))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("locs", locs), 2.0))

    x = torch.full((number,), 0.7)
    fixed = drawing(guide, z=values.expand(4, number))
    weights = log_weights((model, fixed), x, num_samples=4, plates=PLATES).total[:, :1].detach().softmax(0)
    assert weights.max() > 1.5 * weights.min()
    pyro.set_rng_seed(1)
    loss = IWAE(4, "resampled").measure(model, fixed, x, plates=PLATES).loss
    drawn, of_density = torch.autograd.grad(-loss, [pyro.get_param_store()[name] for name in ("rows", "locs")])
    torch.testing.assert_close(of_density, -drawn / 4)
    for value, weight in zip(values[:, 0], weights[:, 0], strict=True):
        assert_mean((drawn == value).double(), weight, detects=0.02)


@pytest.mark.parametrize("doubly", [False, True])
def test_piwae_gives_the_model_iwae_and_the_guide_miwae(doubly, pair):
    model, guide, x = pair
    of_model = Grid(model, guide, x, 4)
    of_guide = Grid(model, guide, x, 2)
    expected = [
        flat(-of_model.mean(IWAE(4).value(of_model.log_weights())), [*model.parameters()]),
        flat(-of_guide.mean(IWAE(2).value(of_guide.log_weights())), [*guide.parameters()]),
    ]
    assert_mean_gradient(PIWAE(2, 2, doubly), pair, torch.cat(expected))


class TestScoreFunction:
    def test_the_baselines_lower_the_variance(self, pair):
        model, guide, x = pair

        def variance(objective):
            module = objective(model, guide)
            module.start(x)
            pyro.set_rng_seed(1)
            return torch.stack([flat(module(x), [*guide.parameters()]) for _ in range(150)]).var(0).mean()

        assert variance(VIMCO(5)) < 0.5 * variance(IWAE(5, "score_function"))
        assert variance(ELBO(5, estimator="score_function")) < 0.1 * variance(ELBO(1, estimator="score_function"))

    def test_the_signal_of_a_particle_is_judged_by_the_others(self):
        log_w = torch.randn(6, 2)
        first, second = IWAE(3).value(log_w[:3]), IWAE(3).value(log_w[3:])
        expected = torch.stack([first - second] * 3 + [second - first] * 3) / 2
        torch.testing.assert_close(MIWAE(2, 3).signals(log_w), expected)
        leave_one_out = (log_w - (log_w.sum(0) - log_w) / 5) / 6
        torch.testing.assert_close(ELBO(6).signals(log_w), leave_one_out)
        mixed = 0.3 * leave_one_out + 0.7 * IWAE(6).value(log_w)
        torch.testing.assert_close(CIWAE(0.3, 6).signals(log_w), mixed)
        replaced = log_w.clone()
        replaced[4] = log_w[[0, 1, 2, 3, 5]].mean(0)
        torch.testing.assert_close(VIMCO(6).signals(log_w)[4], IWAE(6).value(log_w) - IWAE(6).value(replaced))

    def test_vimco_is_unbiased(self, pair):
        model, guide, x = pair
        grid = Grid(model, guide, x, 3)
        expected = flat(-grid.mean(IWAE(3).value(grid.log_weights())), [*model.parameters(), *guide.parameters()])
        assert_mean_gradient(VIMCO(3), pair, expected)

    @pytest.mark.parametrize("objective", [VIMCO(2), IWAE(2, "score_function"), MIWAE(2, 2, "score_function")])
    def test_of_a_discrete_guide_it_is_that_of_the_sum(self, objective):
        mixture = Mixture()
        guide, x = MixtureGuide(mixture, sharpness=0.6), torch.tensor([0.3])
        parameters = [*mixture.parameters(), *guide.parameters()]
        log_joint = mixture.weights.log() + dist.Normal(mixture.centres, 0.7).log_prob(x)
        log_q = (guide.sharpness * mixture.joint(x)[0]).log_softmax(0)
        log_w = log_joint - log_q
        pairs = torch.stack([log_w[:, None].expand(3, 3), log_w.expand(3, 3)])
        value = ((log_q[:, None] + log_q).exp() * IWAE(2).value(pairs)).sum()
        module = objective(mixture, guide)
        module.start(x)
        pyro.set_rng_seed(1)
        draws = torch.stack([flat(module(x.expand(500)) / 500, parameters) for _ in range(100)])
        error = draws.std(0) / 10
        expected = flat(-value, parameters)
        assert ((QUANTILE + POWER) * error < 0.2 * expected.abs().max()).all()
        assert ((draws.mean(0) - expected).abs() < QUANTILE * error).all()


class TestSleep:
    def wake(self, pair, particles=3):
        """What the wake phase of the guide climbs: the log density at draws that stand, counted by their weights."""
        grid = Grid(*pair, particles)
        counted = grid.log_weights().detach().softmax(0) * grid.proposal(grid.z.detach())
        return grid.mean(counted.sum(0))

    def asleep(self, pair):
        """The mean of ``log q(z | x)`` over the model's own data, in closed form."""
        model, guide, _ = pair
        slope, scale = guide.slope[0], guide.factor[0, 0]
        with torch.no_grad():
            weight, bias, noise = model.weight[:, 0], model.bias, model.noise
        mean = -slope @ bias - guide.offset[0]
        variance = (1 - slope @ weight) ** 2 + noise**2 * slope @ slope
        return -0.5 * (mean**2 + variance) / scale**2 - scale.log()

    def expected(self, pair, of_model, of_guide):
        model, guide, _ = pair
        return torch.cat([flat(-of_model, [*model.parameters()]), flat(-of_guide, [*guide.parameters()])])

    @pytest.mark.parametrize("insomnia", [1.0, 0.4, 0.0])
    def test_reweighted_wake_sleep(self, insomnia, pair):
        grid = Grid(*pair, 3)
        of_guide = insomnia * self.wake(pair) + (1 - insomnia) * self.asleep(pair)
        expected = self.expected(pair, grid.mean(IWAE(3).value(grid.log_weights())), of_guide)
        assert_mean_gradient(ReweightedWakeSleep(3, insomnia), pair, expected)

    def test_wake_sleep(self, pair):
        grid = Grid(*pair, 1)
        expected = self.expected(pair, grid.mean(grid.log_weights()[0]), self.asleep(pair))
        assert_mean_gradient(WakeSleep(2), pair, expected)

    def test_awake_the_guide_learns_nothing_in_wake_sleep(self):
        """Its gradient is that of the dreams alone, draw by draw."""
        model = LinearGaussian()
        guide, x = GaussianGuide(model, shift=0.3, widen=1.3), model.data(4)
        gradients = [
            flat(measure(objective, model, guide, x).loss, [*guide.parameters()])
            for objective in (WakeSleep(3), ReweightedWakeSleep(3, insomnia=0.0))
        ]
        torch.testing.assert_close(*gradients)
        assert gradients[0].abs().max() > 0.1

    def test_of_one_datum_the_wake_phases_are_stock_pyros(self):
        """Of several, stock Pyro weighs the batch as a whole."""
        model = LinearGaussian()
        guide, x = GaussianGuide(model, shift=0.3, widen=1.3), model.data(1)
        loss = measure(ReweightedWakeSleep(5), model, guide, x).loss
        parameters = [*model.parameters(), *guide.parameters()]
        gradients = torch.autograd.grad(loss, parameters)
        stock = StockReweightedWakeSleep(5, insomnia=1.0, vectorize_particles=True, max_plate_nesting=1)
        pyro.set_rng_seed(1)
        stock.loss_and_grads(model, guide, x)
        torch.testing.assert_close(gradients, tuple(parameter.grad for parameter in parameters))


class TestTailAdaptive:
    def test_shares_follow_the_rank_of_the_weight(self):
        log_w = torch.tensor([[3.0, 0.0], [1.0, 0.0], [2.0, 5.0]])
        shares = TailAdaptive(3).shares(log_w)
        expected = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.5, 3.0]])  # 1 over the part of the draws that weigh as much
        torch.testing.assert_close(shares, expected / expected.sum(0))

    def test_the_guides_gradient_is_that_of_algorithm_1(self):
        model = LinearGaussian()
        guide, x = GaussianGuide(model, shift=0.3, widen=1.3), model.data(3)
        gradients = flat(measure(TailAdaptive(6), model, guide, x).loss, [*guide.parameters()])
        pyro.set_rng_seed(1)
        q = guide.proposal(x)
        z = q.expand((6, 3)).rsample()
        stopped = dist.MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach())
        likelihood = dist.Normal(model.mean(z), model.noise).log_prob(x).sum(-1)
        log_w = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + likelihood - stopped.log_prob(z)
        rank = (-log_w).argsort(0).argsort(0) + 1.0
        shares = (1 / rank) / (1 / rank).sum(0)
        torch.testing.assert_close(gradients, flat(-(shares * log_w).sum(), [*guide.parameters()]), rtol=0, atol=1e-10)

    def test_the_model_climbs_iwae(self):
        model = LinearGaussian()
        guide, x = GaussianGuide(model, shift=0.3, widen=1.3), model.data(3)
        ours, expected = (
            flat(measure(objective, model, guide, x).loss, [*model.parameters()]) for objective in (TailAdaptive(6), IWAE(6))
        )
        torch.testing.assert_close(ours, expected)


def test_the_evidence_upper_bound_lowers_the_other_kl(pair):
    model, guide, x = pair
    grid = Grid(model, guide, x, 3)
    value = grid.mean(EUBO(3).value(grid.log_weights()))
    of_model = sum(parameter.numel() for parameter in model.parameters())
    expected = torch.cat([torch.zeros(of_model), flat(value, [*guide.parameters()])])
    assert_mean_gradient(EUBO(3), pair, expected)
