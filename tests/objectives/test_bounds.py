"""The value of every bound against quadrature, and the order in which bounds stand."""

import math
from typing import get_args

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, measure, refused
from programs import GaussianGuide, LinearGaussian, gaussian_kl, weight_variance
from pyro.infer import RenyiELBO
from quadrature import Grid, exact

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
from pyrovae.objectives.gradient_estimators import Estimator

pytestmark = pytest.mark.usefixtures("float64")


def iwae(log_w):
    return log_w.exp().mean(0).log()


def elbo(log_w):
    return log_w.mean(0)


def ciwae(log_w):
    return 0.3 * elbo(log_w) + 0.7 * iwae(log_w)


def power(gamma):
    return lambda log_w: (gamma * log_w).exp().mean(0).log() / gamma


def tilted(log_w, beta):
    w = (beta * log_w).exp()
    return (w * log_w).sum(0) / w.sum(0)


def thermodynamic(log_w):
    """Of the partition 0, 0.1, 1."""
    return 0.1 * tilted(log_w, 0.0) + 0.9 * tilted(log_w, 0.1)


values = {
    "ELBO(2)": (ELBO(2), 1, elbo),
    "ELBO(3)": (ELBO(3), 1, elbo),
    "IWAE(2)": (IWAE(2), 2, iwae),
    "IWAE(3)": (IWAE(3), 3, iwae),
    "MIWAE(3, 2)": (MIWAE(3, 2), 2, iwae),
    "MIWAE(2, 3)": (MIWAE(2, 3), 3, iwae),
    "CIWAE(0.3, 2)": (CIWAE(0.3, 2), 2, ciwae),
    "CIWAE(0.3, 3)": (CIWAE(0.3, 3), 3, ciwae),
    "PIWAE(2, 1)": (PIWAE(2, 1), 2, iwae),
    "PIWAE(1, 3)": (PIWAE(1, 3), 3, iwae),
    "PIWAE(2, 2)": (PIWAE(2, 2), 4, iwae),
    "Renyi(0.4, 2)": (Renyi(0.4, 2), 2, power(0.6)),
    "Renyi(0.4, 3)": (Renyi(0.4, 3), 3, power(0.6)),
    "Renyi(-1, 3)": (Renyi(-1.0, 3), 3, power(2.0)),
    "Renyi(1, 2)": (Renyi(1.0, 2), 1, elbo),
    "Renyi(0, 3)": (Renyi(0.0, 3), 3, iwae),
    "ThermodynamicELBO(2, 2, 0.1)": (ThermodynamicELBO(2, 2, 0.1), 2, thermodynamic),
    "ThermodynamicELBO(3, 2, 0.1)": (ThermodynamicELBO(3, 2, 0.1), 3, thermodynamic),
    "ThermodynamicELBO(3, 1)": (ThermodynamicELBO(3, 1), 1, elbo),
    "CUBO(2, 2)": (CUBO(2.0, 2), 2, power(2.0)),
    "CUBO(2, 3)": (CUBO(2.0, 3), 3, power(2.0)),
    "CUBO(1.5, 3)": (CUBO(1.5, 3), 3, power(1.5)),
    "EUBO(2)": (EUBO(2), 2, lambda log_w: tilted(log_w, 1.0)),
    "EUBO(3)": (EUBO(3), 3, lambda log_w: tilted(log_w, 1.0)),
    "VIMCO(2)": (VIMCO(2), 2, iwae),
    "VIMCO(3)": (VIMCO(3), 3, iwae),
    "ReweightedWakeSleep(2)": (ReweightedWakeSleep(2), 2, iwae),
    "ReweightedWakeSleep(3)": (ReweightedWakeSleep(3), 3, iwae),
    "TailAdaptive(2)": (TailAdaptive(2), 2, iwae),
    "TailAdaptive(3)": (TailAdaptive(3), 3, iwae),
    "WakeSleep(2)": (WakeSleep(2), 1, elbo),
}


@pytest.fixture
def pair():
    model = LinearGaussian(data_dim=2, latent_dim=1)
    return model, GaussianGuide(model, shift=0.4, widen=1.3, diagonal=True), torch.tensor([[0.6, -0.8]])


fewer = {"ELBO(2)", "IWAE(2)", "CIWAE(0.3, 2)", "Renyi(0.4, 2)", "ThermodynamicELBO(2, 2, 0.1)", "CUBO(2, 2)", "EUBO(2)"}
fewer |= {"MIWAE(3, 2)", "PIWAE(2, 1)", "VIMCO(2)", "ReweightedWakeSleep(2)", "TailAdaptive(2)"}
"""Bounds that are here with more particles too."""


@pytest.mark.parametrize(
    ("objective", "particles", "formula"),
    [pytest.param(*each, marks=[pytest.mark.slow] * (name in fewer), id=name) for name, each in values.items()],
)
def test_the_mean_value_is_the_quadrature(objective, particles, formula, pair):
    model, guide, x = pair
    expected = exact(model, guide, x, particles, formula).item()
    others = {exact(model, guide, x, k, f).item() for k in (1, 2, 3) for f in (elbo, iwae)} - {expected}
    assert min(abs(expected - other) for other in others if abs(expected - other) > 1e-9) > 0.01
    with torch.no_grad():
        bound = measure(objective, model, guide, x.expand(150_000, 2)).bound
    assert_mean(bound, expected, detects=0.015)


def test_the_quadrature_is_right(pair):
    """Against closed forms: of log p(x), and of the KL by which the ELBO falls short of it."""
    model, guide, x = pair
    grid = Grid(model, guide, x, 1)
    log_p = grid.mean(grid.log_weights()[0].exp()).log()
    torch.testing.assert_close(log_p, model.log_p(x)[0])
    gap = gaussian_kl(guide.moments(x), model.posterior(x))[0]
    torch.testing.assert_close(exact(model, guide, x, 1, elbo), model.log_p(x)[0] - gap)


def test_bounds_stand_in_order(pair):
    """Their exact means: each bound between those it lies between, and tighter with more particles."""
    model, guide, x = pair

    def value(objective):
        return exact(model, guide, x, objective.num_particles, objective.value).item()

    order = [ELBO(1), CIWAE(0.5, 2), IWAE(2), IWAE(3), IWAE(4)]
    found = [*map(value, order), model.log_p(x).item()]
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert value(ELBO(1)) == pytest.approx(value(MIWAE(3, 1)))
    thermodynamic = [value(ThermodynamicELBO(3, partitions, 0.1)) for partitions in (1, 2, 4, 8)]
    assert value(ELBO(1)) == pytest.approx(thermodynamic[0])
    assert [*thermodynamic, value(IWAE(3))] == sorted([*thermodynamic, value(IWAE(3))])
    renyi = [value(Renyi(alpha, 3)) for alpha in (2.0, 1.0, 0.5, 0.0, -1.0)]
    assert renyi == sorted(renyi)


def test_the_chi_bound_is_above(pair):
    r""":math:`E \exp(n \hat L) = E w^n` at every K, which is known in closed form for n = 2."""
    model, guide, x = pair
    variance = weight_variance(guide.moments(x), model.posterior(x))
    assert variance > 0.1
    with torch.no_grad():
        bound = measure(CUBO(2.0, 50), model, guide, x.expand(20_000, 2)).bound
        many = measure(CUBO(2.0, 5000), model, guide, x.expand(500, 2)).bound
    assert_mean((2 * (bound - model.log_p(x))).exp(), 1 + variance, detects=0.02)
    limit = 0.5 * (1 + variance).log()
    assert_mean(many - model.log_p(x), limit, detects=0.02 * float(limit))


def test_the_evidence_upper_bound_of_resampled_draws(pair):
    """At many draws: the KL from the posterior to the guide above log p(x)."""
    model, guide, x = pair
    with torch.no_grad():
        bound = measure(EUBO(2000), model, guide, x.expand(1000, 2)).bound
    gap = gaussian_kl(model.posterior(x), guide.moments(x))
    assert gap > 0.1
    assert_mean(bound, model.log_p(x) + gap, detects=0.02)


def test_the_evidence_upper_bound_of_simulated_data(pair):
    """On data of the model, log p(x) and that KL in the mean, whatever the batch holds."""
    model, guide, _ = pair
    with torch.no_grad():
        bound = measure(EUBO(posterior="simulated"), model, guide, torch.zeros(200_000, 2)).bound
    x = model.data(200_000)
    (loc, covariance), posterior = guide.moments(x), model.posterior(x)
    expected = model.log_p(x) + gaussian_kl(posterior, (loc, covariance))
    assert_mean(bound - expected, 0.0, detects=0.05)


class TestLimits:
    """Of the order alpha, in single precision too."""

    @pytest.mark.parametrize(("alpha", "limit"), [(1.0, ELBO(5)), (0.0, IWAE(5))])
    def test_they_are_the_elbo_and_iwae(self, alpha, limit, pair):
        model, guide, x = pair
        expected = measure(limit, model, guide, x.expand(6, 2))
        torch.testing.assert_close(measure(Renyi(alpha, 5), model, guide, x.expand(6, 2)), expected)
        for near in (alpha - 1e-4, alpha + 1e-4):
            bound = measure(Renyi(near, 5), model, guide, x.expand(6, 2)).bound
            torch.testing.assert_close(bound, expected.bound, rtol=0, atol=1e-3)
            assert not torch.equal(bound, expected.bound)

    def test_near_the_elbo_rounding_swallows_nothing(self):
        log_w = 100.0 + torch.randn(50, 200, dtype=torch.float64)
        for alpha in (1 - 1e-6, 1 - 1e-3, 1 + 1e-3, 0.9, 0.98):
            precise = Renyi(alpha, 50).value(log_w)
            torch.testing.assert_close(Renyi(alpha, 50).value(log_w.float()), precise.float(), rtol=1e-6, atol=1e-5)
            gamma = 1 - alpha
            slow = (gamma * (log_w - 100.0)).exp().mean(0).log() / gamma + 100.0
            torch.testing.assert_close(precise, slow, rtol=0, atol=1e-8)

    def test_at_small_powers_nothing_overflows(self):
        log_w = torch.linspace(-40_000.0, -20_000.0, 50)
        for power in (0.009, 0.0099, 0.011, -0.009):
            found = Renyi(1 - power, 50).value(log_w[:, None].float())
            expected = ((power * log_w).logsumexp(0) - math.log(50)) / power
            torch.testing.assert_close(found[0].double(), expected, rtol=1e-4, atol=0.0)

    def test_ciwae_at_its_ends(self, pair):
        model, guide, x = pair
        for beta, end in ((0.0, IWAE(4)), (1.0, ELBO(4))):
            ours, expected = (measure(objective, model, guide, x) for objective in (CIWAE(beta, 4), end))
            torch.testing.assert_close(ours.bound, expected.bound)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.5, 2.0])
def test_renyi_is_stock_pyros_where_that_is_right(alpha):
    """Value and gradient, for a plain program with one plate around everything."""
    model = LinearGaussian()
    guide, x = GaussianGuide(model, shift=0.3, widen=1.3), model.data(6)
    value = measure(Renyi(alpha, 7), model, guide, x).loss
    parameters = [*model.parameters(), *guide.parameters()]
    gradients = torch.autograd.grad(value, parameters)
    stock = RenyiELBO(alpha, 7, vectorize_particles=True, max_plate_nesting=1)
    pyro.set_rng_seed(1)
    assert value.item() == pytest.approx(stock.loss(model, guide, x), abs=1e-8)
    pyro.set_rng_seed(1)
    stock.loss_and_grads(model, guide, x)
    torch.testing.assert_close(gradients, tuple(parameter.grad for parameter in parameters))


def test_a_weight_of_zero_is_a_weight():
    """A draw that the model holds for impossible: the sums over draws go on without it, and the ELBO is lost."""
    log_w = torch.tensor([[0.3], [-math.inf], [1.1]])
    rest = log_w[[0, 2]]
    for objective in (IWAE(3), Renyi(0.4, 3), CUBO(2.0, 3)):
        gamma = objective.power
        shrunk = math.log(2 / 3) / gamma
        expected = ((gamma * rest).logsumexp(0) - math.log(2)) / gamma + shrunk
        torch.testing.assert_close(objective.value(log_w), expected)
    torch.testing.assert_close(EUBO(3).value(log_w), tilted(rest, 1.0))
    torch.testing.assert_close(ThermodynamicELBO(3, 1).value(log_w), torch.tensor([-math.inf]))
    for bound in (IWAE(3), Renyi(0.4, 3), ELBO(3), CIWAE(0.5, 3), ThermodynamicELBO(3), VIMCO(3)):
        assert bound.slopes(log_w).isfinite().all()
        assert bound.doubly_reparameterized(log_w).isfinite().all()
    assert IWAE(3).slopes(log_w)[1] == VIMCO(3).slopes(log_w)[1] == 0.0
    assert VIMCO(3).signals(log_w)[1].isfinite()
    single = torch.tensor([[0.3], [-math.inf], [-math.inf]])
    assert VIMCO(3).signals(single).isfinite().all()
    assert CIWAE(0.0, 3).value(log_w) == IWAE(3).value(log_w)
    assert ELBO(3).value(log_w).item() == CIWAE(0.5, 3).value(log_w).item() == -math.inf


@pytest.mark.parametrize(
    "objective",
    [
        *(IWAE(6, estimator) for estimator in get_args(Estimator)),
        PIWAE(1, 6),
        VIMCO(6),
        ReweightedWakeSleep(6),
        TailAdaptive(6),
        CUBO(2.0, 6),
    ],
    ids=lambda objective: f"{type(objective).__name__}-{getattr(objective, 'estimator', '')}",
)
def test_draws_that_are_impossible_leave_the_gradient_finite(objective):
    """A prior on an interval, and a guide that draws outside of it now and then."""
    scale = torch.tensor(1.0, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(-1.0, 1.0, validate_args=False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, pyro.param("scale", scale)))

    x = torch.randn(30)
    module = objective(model, guide)
    module.start(x)
    pyro.set_rng_seed(1)
    weights = module.weights(x).total
    assert (weights == -math.inf).any()
    assert (weights > -math.inf).any(0).all()
    pyro.set_rng_seed(1)
    loss = module(x)
    assert loss.isfinite()
    (gradient,) = torch.autograd.grad(loss, [*module.parameters()])
    assert gradient.isfinite()
    assert gradient.abs() > 1e-6


def test_the_axes_of_groups(pair):
    """Particles of a group follow one another; M and K are not to be swapped."""
    log_w = torch.randn(6, 2)
    expected = torch.stack([iwae(log_w[:3]), iwae(log_w[3:])]).mean(0)
    torch.testing.assert_close(MIWAE(2, 3).value(log_w), expected)
    swapped = torch.stack([iwae(log_w[i : i + 2]) for i in (0, 2, 4)]).mean(0)
    torch.testing.assert_close(MIWAE(3, 2).value(log_w), swapped)
    assert not torch.allclose(expected, swapped)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CIWAE(1.5), ["beta", 1.5, 0, 1]),
        (lambda: Renyi(math.inf), ["alpha", "inf"]),
        (lambda: CUBO(0.5), ["n", 0.5, "CUBO", 1, "Renyi"]),
        (lambda: MIWAE(0, 5), ["num_groups", 0, "MIWAE", 1]),
        (lambda: ThermodynamicELBO(num_partitions=0), ["num_partitions", 0, 1]),
        (lambda: ThermodynamicELBO(smallest_beta=1.0), ["smallest_beta", "1.0", 0]),
        (lambda: ThermodynamicELBO(estimator="resampled"), ["'resampled'", "ThermodynamicELBO", "'reparameterized'"]),
        (lambda: VIMCO(1), ["num_particles", 1, "VIMCO", 2]),
        (lambda: TailAdaptive(1), ["num_particles", 1, "TailAdaptive", 2]),
        (lambda: ReweightedWakeSleep(1), ["num_particles", 1, 2, "insomnia=0"]),
        (lambda: ReweightedWakeSleep(insomnia=2.0), ["insomnia", "2.0", 0, 1]),
        (lambda: EUBO(posterior="exact"), ["posterior", "'exact'", "'resampled'", "'simulated'"]),
        (lambda: EUBO(5, "simulated"), ["num_particles", 5, 1]),
        (lambda: IWAE(estimator="drgp"), ["estimator", "'drgp'", "'reparameterized'", "'score_function'"]),
        (lambda: ELBO(analytic_kl=True, estimator="stl"), ["'stl'", "analytic_kl=False", 'estimator="reparameterized"']),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, words):
    with refused(*words):
        make()
