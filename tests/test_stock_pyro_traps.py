"""Where stock Pyro answers without a word and the answer is not the one for each datum, and what is answered here."""

import math
from dataclasses import replace
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from programs import PLATES, GaussianGuide, LinearGaussian, Mixture, MixtureGuide, Subsampled, WithDeterministic
from pyro.distributions import constraints
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceTailAdaptive_ELBO
from pyro.infer import ReweightedWakeSleep as StockReweightedWakeSleep
from pyro.infer.importance import vectorized_importance_weights
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyrovae.engine.log_weights import log_weights
from pyrovae.objectives import ELBO, IWAE, Objective, ReweightedWakeSleep, TailAdaptive

pytestmark = pytest.mark.usefixtures("float64")
K = 50


def renyi():
    return RenyiELBO(alpha=0.0, num_particles=K, vectorize_particles=True, max_plate_nesting=1)


def values(model, guide, x):
    """Stock Pyro's importance-weighted bound of the batch and this library's, from the same random numbers."""
    iwae = IWAE(K)(model, guide)
    iwae(x)
    pyro.set_rng_seed(1)
    stock = -renyi().loss(model, guide, x)
    pyro.set_rng_seed(1)
    return stock, -iwae(x).item()


def log_mean_exp(log_w):
    return log_w.logsumexp(0) - math.log(len(log_w))


@pytest.fixture
def x():
    return LinearGaussian().data(200)


class TestDeterministicOutsideThePlate:
    def test_the_plain_program_is_right_in_both(self, x):
        model = LinearGaussian()
        stock, ours = values(model, GaussianGuide(model, shift=0.5, widen=1.5), x)
        assert ours == pytest.approx(stock, abs=1e-8)
        assert ours == pytest.approx(model.log_p(x).sum().item(), abs=10.0)

    def test_stock_pyro_answers_the_joint_bound(self, x):
        model = WithDeterministic()
        guide = GaussianGuide(model, shift=0.5, widen=1.5)
        stock, ours = values(model, guide, x)
        pyro.set_rng_seed(1)
        log_w = log_weights((model, guide), x, num_samples=K).total
        assert stock == pytest.approx(log_mean_exp(log_w.sum(1)).item(), abs=1e-8)
        assert stock < ours - 30.0
        assert ours == pytest.approx(log_mean_exp(log_w).sum().item(), abs=1e-8)
        assert ours == pytest.approx(values(LinearGaussian(), guide, x)[1], abs=1e-8)


class TestSubsampledPlate:
    def test_stock_pyro_answers_above_log_p(self, x):
        model = LinearGaussian()
        guide = GaussianGuide(model, shift=0.5, widen=1.5)
        pair = Subsampled(model, guide, 100)
        stock, ours = values(pair.model, pair.guide, x)
        pyro.set_rng_seed(1)
        weights = log_weights(pair, x, num_samples=K)
        rows = weights.model.nodes["x"]["value"]
        log_p = 2.0 * model.log_p(rows).sum().item()
        assert stock == pytest.approx(log_mean_exp(2.0 * weights.total).sum().item(), abs=1e-8)
        assert stock > log_p + 10.0
        assert ours == pytest.approx(2.0 * log_mean_exp(weights.total).sum().item(), abs=1e-8)
        assert ours < log_p


class TestJointImportanceWeights:
    def test_stock_pyro_weighs_the_batch_and_not_the_datum(self, x):
        model = LinearGaussian()
        guide = GaussianGuide(model, shift=0.5, widen=1.5)
        pyro.set_rng_seed(1)
        stock, _, _ = vectorized_importance_weights(model, guide, x, num_samples=K, max_plate_nesting=1, normalized=False)
        pyro.set_rng_seed(1)
        log_w = log_weights((model, guide), x, num_samples=K).total
        assert stock.shape == (K,)
        torch.testing.assert_close(stock, log_w.sum(1))
        assert log_mean_exp(stock) < log_mean_exp(log_w).sum() - 30.0


class TestGuideWithoutReparameterisation:
    def test_stock_pyro_leaves_it_without_gradient(self):
        mixture = Mixture()
        guide = MixtureGuide(mixture, sharpness=0.5)
        renyi().loss_and_grads(mixture, guide, torch.randn(20))
        assert mixture.centres.grad is not None
        assert guide.sharpness.grad is None or guide.sharpness.grad == 0.0

    @pytest.mark.parametrize("objective", [ELBO(K), IWAE(K)])
    def test_it_is_refused_here(self, objective):
        mixture = Mixture()
        with refused("'c'", "Categorical", type(objective).__name__, 'estimator="score_function"'):
            objective.loss_and_grads(mixture, MixtureGuide(mixture, sharpness=0.5), torch.randn(20))


class Scaled(PyroModule):
    def __init__(self, scale, constrained=False):
        super().__init__()
        scale = torch.tensor(scale)
        self.scale = PyroParam(scale, constraints.positive) if constrained else nn.Parameter(scale)


class ScaledModel(Scaled):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class ScaledGuide(Scaled):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, self.scale.mean()))


def scales(weights):
    return [program.nodes["z"]["fn"].scale.unique().item() for program in (weights.model, weights.guide)]


each_kind = pytest.mark.parametrize("constrained", [False, True])


def handled(program):
    return pyro.poutine.mask(pyro.poutine.scale(scale=1.0)(program), mask=torch.tensor(True))


class TestTwoModulesWithAParameterOfOneName:
    """Two unrelated modules that both own ``scale``."""

    def test_stock_pyro_trains_one_of_them(self):
        model, guide = ScaledModel(1.0), ScaledGuide(0.5)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        for _ in range(3):
            svi.step(torch.randn(20))
        assert [*pyro.get_param_store()] == ["scale"]
        assert guide.scale.item() != 0.5
        assert model.scale.item() == 1.0

    def test_stock_pyro_overwrites_one_of_them_where_it_has_a_constraint(self):
        model, guide = ScaledModel(1.0, constrained=True), ScaledGuide(0.5, constrained=True)
        Trace_ELBO().loss(model, guide, torch.randn(20))
        assert model.scale.item() == guide.scale.item() == 0.5

    @each_kind
    @pytest.mark.parametrize(
        "form",
        [lambda program: program, lambda program: program.forward, handled, partial],
        ids=["module", "method", "handler", "partial"],
    )
    def test_both_are_kept_here(self, form, constrained):
        modules = ScaledModel(1.0, constrained), ScaledGuide(0.5, constrained)
        model, guide = (form(module) for module in modules)
        x = torch.randn(20)
        assert scales(log_weights((model, guide), x)) == pytest.approx([1.0, 0.5])
        loss = ELBO()(model, guide)
        parameters = [*loss.parameters()]
        assert {*parameters} == {parameter for module in modules for parameter in module.parameters()}
        optim = torch.optim.Adam(parameters, lr=0.1)
        loss(x).backward()
        optim.step()
        assert modules[0].scale.item() != pytest.approx(1.0)
        assert modules[1].scale.item() != pytest.approx(0.5)
        trained = [module.scale.item() for module in modules]
        assert scales(log_weights((model, guide), x)) == pytest.approx(trained)
        assert scales(log_weights(modules, x)) == pytest.approx(trained)


class TestParameterThatIsNotContiguous:
    """Such as the kernels of a convolution in the layout ``channels_last``, which is fast on a GPU."""

    def programs(self):
        model = ScaledModel(1.0)
        guide = ScaledGuide(1.0)
        guide.scale = nn.Parameter(torch.full((4, 10), 0.5).T)
        return model, guide

    def test_stock_pyro_trains_a_copy_of_it(self):
        model, guide = self.programs()
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        svi.step(torch.randn(20))
        assert (guide.scale == 0.5).all()

    def test_it_is_trained_here(self):
        model, guide = self.programs()
        loss = ELBO()(model, guide)
        loss(torch.randn(20)).backward()
        assert {*loss.parameters()} == {model.scale, guide.scale}
        assert guide.scale.grad.norm() > 0.0


class TestFrozenParameter:
    def test_stock_pyro_thaws_it(self):
        model, guide = ScaledModel(1.0), ScaledGuide(0.5).requires_grad_(False)
        Trace_ELBO().loss(model, guide, torch.randn(20))
        assert guide.scale.requires_grad

    def test_it_stays_frozen_here(self):
        model, guide = ScaledModel(1.0), ScaledGuide(0.5).requires_grad_(False)
        ELBO()(model, guide)(torch.randn(20))
        assert not guide.scale.requires_grad


class TestReweightedWakeSleep:
    """Stock Pyro weighs a draw of the whole batch at once, and the more data the batch has, the fewer draws count."""

    def test_weights_are_of_the_batch_there_and_of_each_datum_here(self):
        model, x = LinearGaussian(), LinearGaussian().data(20)
        guide = GaussianGuide(model, shift=0.5, widen=1.5)
        parameters = [*guide.parameters()]
        weights = drawn(model, guide, x)
        density = guide.proposal(x).log_prob(weights.guide.nodes["z"]["value"].detach())
        expected = [
            torch.autograd.grad(-(counted.detach() * density).sum(), parameters, retain_graph=True)
            for counted in (weights.total.softmax(0), weights.total.sum(1, keepdim=True).softmax(0).expand(K, 20))
        ]
        stock = StockReweightedWakeSleep(K, insomnia=1.0, vectorize_particles=True, max_plate_nesting=1)
        torch.testing.assert_close(gradients(ReweightedWakeSleep(K), model, guide, x), expected[0])
        torch.testing.assert_close(gradients(stock, model, guide, x), expected[1])
        assert not torch.allclose(expected[0][1], expected[1][1], rtol=0.1)


class TestTailAdaptive:
    """Stock Pyro takes the permutation that sorts the weights for their ranks, and counts the joint weight of a batch."""

    def test_of_one_datum_the_ranks_are_wrong_there_and_right_here(self):
        model = LinearGaussian()
        guide, x = GaussianGuide(model, shift=0.5, widen=1.5), model.data(1)
        parameters = [*guide.parameters()]
        log_w = drawn(model, guide, x, stopped=True).total[:, 0]
        permutation, rank = log_w.argsort(), (-log_w).argsort().argsort()
        shares = [1.0 / (order + 1.0) for order in (rank, permutation)]
        right = torch.autograd.grad(-(shares[0] / shares[0].sum() * log_w).sum(), parameters)
        torch.testing.assert_close(gradients(TailAdaptive(K), model, guide, x), right)
        log_w = drawn(model, guide, x).total[:, 0]
        wrong = torch.autograd.grad(-(shares[1] / shares[1].sum() * log_w).sum() / K, parameters)  # once more by K
        stock = TraceTailAdaptive_ELBO(num_particles=K, vectorize_particles=True, max_plate_nesting=1)
        torch.testing.assert_close(gradients(stock, model, guide, x), wrong)
        assert not torch.equal(permutation, rank)


def drawn(model, guide, x, stopped=False):
    """The weights of the draws of one seed; with the density's parameters stopped, if asked for."""
    pyro.set_rng_seed(1)
    weights = log_weights((model, guide), x, num_samples=K, plates=PLATES)
    if not stopped:
        return weights
    q = guide.proposal(x)
    density = dist.MultivariateNormal(q.loc.detach(), scale_tril=q.scale_tril.detach())
    return replace(weights, proposal_terms={"z": density.log_prob(weights.guide.nodes["z"]["value"])})


def gradients(objective, model, guide, x):
    """Of the guide's parameters, from the same draws, through ``loss_and_grads``."""
    guide.zero_grad()
    if isinstance(objective, Objective):
        objective.loss(model, guide, x)  # the first call examines the pair
    pyro.set_rng_seed(1)
    objective.loss_and_grads(model, guide, x)
    return tuple(parameter.grad.clone() for parameter in guide.parameters())
