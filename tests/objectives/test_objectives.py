"""What every objective promises, asked of each class in the room."""

import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import default, made, measure, members, refused
from programs import (
    PLATES,
    GaussianGuide,
    LinearGaussian,
    Subsampled,
    WithDeterministic,
    WithPixelPlate,
    drawing,
    functions,
)
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO
from torch import nn

import pyrovae.objectives
from pyrovae.engine.call import Call
from pyrovae.engine.log_weights import log_weights
from pyrovae.objectives import ELBO, IWAE, SIWAE, BetaELBO, Objective, ObjectiveModule, WakeSleep

pytestmark = pytest.mark.usefixtures("float64")
classes = members(pyrovae.objectives, Objective)
bounds = [cls for cls in classes if not cls.coupled]
"""Those that bound log p(x) of each datum by itself."""


def every(classes):
    return pytest.mark.parametrize("objective", [default(cls) for cls in classes], ids=[cls.__name__ for cls in classes])


every_objective = every(classes)
every_bound = every(bounds)


@pytest.fixture
def pair():
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.3, widen=1.3, diagonal=True)


def trained(objective, model, guide):
    """The parameters that an objective has a gradient for: of an upper bound they are the guide's."""
    return [*guide.parameters(), *(model.parameters() if objective.sign > 0 else ())]


class TestParticles:
    @pytest.mark.parametrize("particles", [2, 9])
    @pytest.mark.parametrize("cls", bounds)
    def test_at_the_exact_posterior_the_bound_is_log_p(self, cls, particles):
        objective, model = made(cls, particles), LinearGaussian()
        guide, x = GaussianGuide(model), model.data(5)
        bound = measure(objective, model, guide, x).bound
        torch.testing.assert_close(bound, model.log_p(x), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("cls", classes)
    def test_none_are_refused(self, cls):
        with refused(0, cls.__name__, 1):
            made(cls, 0)


@every_objective
class TestValue:
    def test_the_loss_is_minus_the_sum_of_the_bounds(self, objective, pair):
        measured = measure(objective, *pair, pair[0].data(6))
        assert measured.loss.shape == ()
        assert all(value.shape == (6,) for value in measured[1:4])
        assert measured.parts.shape == (len(objective.parts), 6)
        torch.testing.assert_close(measured.loss.detach(), -objective.sign * measured.bound.sum())
        assert not any(value.requires_grad for value in measured[1:5])

    def test_terms_are_the_means_of_the_weights(self, objective, pair):
        x = pair[0].data(4)
        measured = measure(objective, *pair, x)
        pyro.set_rng_seed(1)
        weights = log_weights(pair, x, num_samples=objective.num_particles)
        torch.testing.assert_close(measured.reconstruction, weights.log_likelihood.mean(0).detach())
        torch.testing.assert_close(measured.kl, objective.kl(weights).detach())

    def test_vectorised_particles_are_looped_ones(self, objective, pair):
        """The same noise, a draw at a time, gives the weights of which the value is made."""
        x = pair[0].data(4)
        measured = measure(objective, *pair, x)
        pyro.set_rng_seed(1)
        z = objective(*pair).weights(x).guide.nodes["z"]["value"]
        single = [drawing(pair[1], z=z[[k]]) for k in range(objective.num_particles)]
        looped = [log_weights((pair[0], guide), x, plates=PLATES).total for guide in single]
        alike = drawing(pair[1], z=z)
        weights = log_weights((pair[0], alike), x, num_samples=objective.num_particles, plates=PLATES)
        torch.testing.assert_close(torch.cat(looped), weights.total, rtol=0, atol=1e-10)
        again = objective.measure(pair[0], alike, x, plates=PLATES)
        if not objective.parts:
            torch.testing.assert_close(again.bound, measured.bound)
        torch.testing.assert_close([again.reconstruction, again.kl], [measured.reconstruction, measured.kl])

    def test_a_subsampled_plate_scales_the_loss_and_not_the_bound(self, objective, pair):
        subsampled = Subsampled(*pair, 4)
        x = pair[0].data(12)
        module = objective(subsampled.model, subsampled.guide)
        if isinstance(objective, WakeSleep):
            with refused("'x'", "pyro.sample(..., obs=x)"):
                module(x)
            return
        module.start(x)
        pyro.set_rng_seed(1)
        measured = module.measure(x)
        pyro.set_rng_seed(1)
        weights = module.weights(x)
        rows, z = weights.model.nodes["x"]["value"], weights.guide.nodes["z"]["value"]
        plain = objective.measure(pair[0], drawing(pair[1], z=z), rows, plates=PLATES)
        if not objective.parts:
            torch.testing.assert_close(measured.bound, plain.bound)
        torch.testing.assert_close(measured.reconstruction, plain.reconstruction)
        torch.testing.assert_close(measured.loss.detach(), -3.0 * objective.sign * measured.bound.sum())

    def test_without_gradients_the_value_is_the_same(self, objective, pair):
        x = pair[0].data(4)
        with torch.no_grad():
            value = measure(objective, *pair, x).loss
        torch.testing.assert_close(value, measure(objective, *pair, x).loss.detach(), rtol=0, atol=1e-12)
        assert not value.requires_grad


@every_bound
class TestBound:
    @pytest.mark.parametrize("structure", [LinearGaussian, WithDeterministic, WithPixelPlate])
    def test_each_datum_counts_by_itself(self, objective, structure):
        model = structure()
        guide = GaussianGuide(model, shift=0.3, widen=1.3, diagonal=True)
        x = model.data(2)
        module = objective(model, guide)
        if isinstance(objective, WakeSleep) and structure is WithPixelPlate:
            with refused("'x'", "pyro.sample(..., obs=x)"):
                module(x)
            return
        module.start(x)
        pyro.set_rng_seed(1)
        both = module.measure(x)
        pyro.set_rng_seed(1)
        z = module.weights(x).guide.nodes["z"]["value"]
        for row in range(2):
            alone = objective.measure(model, drawing(guide, z=z[..., [row], :]), x[[row]], plates=module.plates)
            for value, values in zip(alone[1:4], both[1:4], strict=True):
                torch.testing.assert_close(value, values[[row]])

    def test_it_is_a_bound(self, objective, pair):
        """In the mean over so many draws that a wrong sign of any term shows."""
        model, _ = pair
        x = model.data(1)
        bound = measure(objective, *pair, x.expand(8000, 3)).bound
        beyond = objective.sign * (model.log_p(x) - bound.mean())
        assert 4.42 * bound.std() / len(bound) ** 0.5 < beyond < 2.0


@every_objective
class TestForms:
    def test_module_and_svi_agree(self, objective, pair):
        model, guide = pair
        x = model.data(4)
        loss = measure(objective, model, guide, x).loss
        gradients = torch.autograd.grad(loss, trained(objective, model, guide))
        objective.loss(model, guide, x)
        pyro.set_rng_seed(1)
        assert objective.loss(model, guide, x) == pytest.approx(loss.item())
        pyro.set_rng_seed(1)
        assert objective.loss_and_grads(model, guide, x) == pytest.approx(loss.item())
        torch.testing.assert_close(gradients, tuple(value.grad for value in trained(objective, model, guide)))
        pyro.set_rng_seed(1)
        assert objective.differentiable_loss(model, guide, x).item() == pytest.approx(loss.item())

    def test_a_finite_gradient_reaches_every_parameter(self, objective, pair):
        measure(objective, *pair, pair[0].data(4)).loss.backward()
        for parameter in trained(objective, *pair):
            assert parameter.grad.isfinite().all()
            assert parameter.grad.norm() > 0.0
        others = {*pair[0].parameters()} - {*trained(objective, *pair)}
        assert all(parameter.grad is None for parameter in others)

    def test_functions_are_programs_too(self, objective, pair):
        x = pair[0].data(4)
        module = objective(*functions(*pair))
        module.start(x)
        pyro.set_rng_seed(1)
        loss = module(x)
        torch.testing.assert_close(loss, measure(objective, *pair, x).loss)
        loss.backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        assert len(gradients) == 6
        moved = [gradient for gradient in gradients if gradient is not None and gradient.norm() > 0.0]
        assert len(moved) == (6 if objective.sign > 0 else 3)

    def test_svi_trains_functions(self, objective, pair):
        model, guide = functions(*pair)
        x = pair[0].data(4)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), objective)
        svi.step(x)
        before = {name: value.clone() for name, value in pyro.get_param_store().items()}
        svi.step(x)
        assert len(before) == 6
        resting = {name for name, value in pyro.get_param_store().items() if torch.equal(value, before[name])}
        assert resting == (set() if objective.sign > 0 else {"decoder$$$weight", "decoder$$$bias", "noise"})

    def test_the_module_is_one_of_torch(self, objective, pair):
        module = objective(*pair)
        assert isinstance(module, ObjectiveModule)
        assert isinstance(module, nn.Module)
        assert {*module.parameters()} == {*pair[0].parameters(), *pair[1].parameters()}

    def test_keywords_reach_the_programs(self, objective):
        def model(x, *, loc):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(loc, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, *, loc):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((x + loc) / 2, 0.5**0.5))

        x = torch.randn(3)
        measured = objective(model, guide).measure(x, loc=2.0)
        at_the_posterior = dist.Normal(2.0, 2**0.5).log_prob(x)
        torch.testing.assert_close(measured.bound if not objective.parts else at_the_posterior, at_the_posterior)
        assert measured.loss.isfinite()

    def test_programs_that_cannot_be_weighed_are_refused(self, objective):
        def model(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            pyro.sample("z", dist.Normal(0.0, 1.0))

        for run in (objective(model, guide), lambda x: objective.loss(model, guide, x)):
            with refused("'z'", "'data'", 'with pyro.plate("data", ...)'):
                run(torch.randn(3))

    def test_one_objective_serves_several_pairs(self, objective, pair):
        other = LinearGaussian(latent_dim=1)
        x = pair[0].data(4)
        first = objective.loss(*pair, x)
        between = objective.loss(other, GaussianGuide(other, diagonal=True), x)
        if not objective.parts:
            assert -objective.sign * between == pytest.approx(other.log_p(x).sum().item())
        assert first != between
        assert objective.loss(*pair, x) == pytest.approx(first, abs=20.0)

    def test_the_module_checks_and_weighs(self, objective, pair):
        model, guide = pair
        x = model.data(4)
        module = objective(model, guide)
        module(x)
        module.check(x)
        assert module.weights(x).total.shape == (objective.num_particles, 4)
        with refused("'x'", "Normal, Real", "nan"):
            module.check(torch.full_like(x, torch.nan))


def discrete(x):
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(c, 1.0), obs=x)


class DiscreteGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        pyro.module("guide", self)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(logits=self.logit.expand(len(x))))


scored = ["VIMCO", "ReweightedWakeSleep", "WakeSleep", "SELBO", "SIWAE"]
"""Those that need no reparameterisation."""
refusing = [cls for cls in classes if cls.__name__ not in scored]


class TestScaledSites:
    def programs(self):
        model = LinearGaussian()
        return poutine.scale(model, scale=0.5), poutine.scale(GaussianGuide(model, diagonal=True), scale=0.5)

    @pytest.mark.parametrize(
        "objective",
        [
            *(cls() for cls in bounds if cls not in (ELBO, BetaELBO)),
            ELBO(2, estimator="score_function"),
            ELBO(2, estimator="resampled"),
        ],
        ids=lambda each: type(each).__name__,
    )
    def test_they_are_refused_where_densities_are_not_only_added_up(self, objective):
        with refused("'z'", "poutine.scale", type(objective).__name__):
            objective(*self.programs())(torch.randn(3, 3))

    @pytest.mark.parametrize("objective", [ELBO(2), ELBO(2, estimator="stl"), BetaELBO(num_particles=2)])
    def test_they_count_by_their_scale_where_they_are(self, objective):
        assert objective(*self.programs())(torch.randn(3, 3)).isfinite()


def test_an_objective_looks_at_every_pair_that_it_is_called_on():
    """And finds the plates of each; and when pickled it takes none of them along."""
    objective = IWAE(2)
    model, deeper = LinearGaussian(), WithPixelPlate()
    x = model.data(3)
    objective.loss(model, GaussianGuide(model), x)
    value = -objective.loss(deeper, GaussianGuide(deeper), x)
    assert value == pytest.approx(deeper.log_p(x).sum().item())
    with refused("'x'", "Normal, Real", "nan"):
        objective.loss(model, GaussianGuide(model, shift=1.0), torch.full_like(x, torch.nan))
    assert len(pickle.dumps(objective)) < 1000


class TestReparameterisation:
    @pytest.mark.parametrize(
        "objective", [ELBO(2, analytic_kl=True), *(cls() for cls in refusing)], ids=lambda each: type(each).__name__
    )
    def test_a_guide_without_it_is_refused_in_training(self, objective):
        with refused("'c'", "Bernoulli", type(objective).__name__, 'estimator="score_function"'):
            objective(discrete, DiscreteGuide())(torch.randn(3))

    @every_objective
    def test_it_is_no_matter_without_gradients(self, objective):
        with torch.no_grad():
            assert objective(discrete, DiscreteGuide())(torch.randn(3)).isfinite()
        assert math.isfinite(objective.loss(discrete, DiscreteGuide(), torch.randn(3)))

    @every(bounds)
    def test_a_guide_with_nothing_to_learn_is_no_matter(self, objective):
        guide = DiscreteGuide().requires_grad_(False).eval()
        assert objective(discrete, guide)(torch.randn(3)).isfinite()

    @every([cls for cls in classes if cls not in refusing and cls is not SIWAE])  # where its probabilities cancel
    def test_others_train_it(self, objective):
        guide = DiscreteGuide()
        objective(discrete, guide)(torch.randn(3)).backward()
        assert guide.logit.grad.abs() > 0.0


def test_stock_enumeration_agrees_at_the_exact_posterior():
    """The sum over a discrete latent, from Pyro's enumeration, is the bound that every draw of the exact guide has."""

    def guide(x):
        log_joint = torch.stack([dist.Normal(c, 1.0).log_prob(x) for c in (0.0, 1.0)])
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(logits=log_joint[1] - log_joint[0]), infer={"enumerate": "parallel"})

    x = torch.randn(4)
    exact = TraceEnum_ELBO(max_plate_nesting=1).loss(discrete, guide, x)
    assert IWAE(3).loss(discrete, guide, x) == pytest.approx(exact, abs=1e-10)


@pytest.mark.parametrize("cls", classes)
def test_objectives_say_whether_they_couple_the_data_of_a_batch(cls, pair):
    """The value or the gradient of one then depends on another."""
    model, guide = pair
    objective, x = default(cls), model.data(4).requires_grad_()
    found = objective.evaluate(Call(model, guide, (x,), {}, objective.num_particles, PLATES))
    others = [
        torch.autograd.grad(value[0], x, retain_graph=True, allow_unused=True)[0]
        for value in (found.bound, found.surrogate)
        if value.requires_grad
    ]
    assert objective.coupled == any(bool(gradient[1:].any()) for gradient in others if gradient is not None)
