"""The bounds that sum a finite choice, against quadrature and against stock enumeration."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from checks import assert_mean, assert_mean_gradient, flat, measure, refused
from programs import PLATES, GaussianGuide, LinearGaussian, drawing
from pyro.infer import TraceEnum_ELBO
from torch import nn

import pyrovae
from pyrovae.distributions.diagonal_normal_mixture import DiagonalNormalMixture
from pyrovae.engine.call import Call
from pyrovae.engine.log_weights import log_weights
from pyrovae.guides import MixtureNormal
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO, IWAE, SELBO, SIWAE
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")


class TwoModes(nn.Module):
    """A guide of two normal components, the same for all data; ``family`` says of which class."""

    def __init__(self, family=dist.MixtureSameFamily):
        super().__init__()
        self.family = family
        self.logits = nn.Parameter(torch.tensor([0.3, -0.9]))
        self.loc = nn.Parameter(torch.tensor([[-0.6], [0.8]]))
        self.scale = nn.Parameter(torch.tensor([[0.9], [0.5]]))

    def forward(self, x):
        pyro.module("modes", self)
        with pyro.plate("data", len(x), dim=-1):
            components = dist.Normal(self.loc, self.scale).to_event(1)
            return pyro.sample("z", self.family(dist.Categorical(logits=self.logits), components))


@pytest.fixture
def pair():
    return LinearGaussian(data_dim=2, latent_dim=1), TwoModes(), torch.tensor([[0.6, -0.8]])


def exact(objective, model, guide, x):
    """The bound with one draw of each component, by Gauss-Hermite quadrature over both."""
    nodes, probability = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(60))
    probability = torch.cartesian_prod(*[probability / probability.sum()] * 2).prod(1)
    z = (guide.loc + guide.scale * torch.cartesian_prod(nodes, nodes).T)[..., None]  # of each component, shape (2, n, 1)
    joint = dist.Normal(0.0, 1.0).log_prob(z)[..., 0] + dist.Normal(model.mean(z), model.noise).log_prob(x).sum(-1)
    shares = guide.logits.log_softmax(0)
    q = (shares + dist.Normal(guide.loc[:, 0], guide.scale[:, 0]).log_prob(z)).logsumexp(-1)
    if objective is SELBO:
        return (probability * (shares.exp()[:, None] * (joint - q)).sum(0)).sum()
    return (probability * (shares[:, None] + joint - q).logsumexp(0)).sum()


both = pytest.mark.parametrize("objective", [SELBO, SIWAE])


@both
def test_the_mean_gradient_is_that_of_the_exact_bound(objective, pair):
    model, guide, _ = pair
    expected = flat(-exact(objective, *pair), [*model.parameters(), *guide.parameters()])
    assert_mean_gradient(objective(2), pair, expected)


@both
@pytest.mark.parametrize("family", [dist.MixtureSameFamily, DiagonalNormalMixture])
def test_its_mean_is_the_exact_bound(objective, pair, family):
    model, _, x = pair
    bound = measure(objective(2), model, TwoModes(family), x.expand(40_000, -1)).bound
    assert_mean(bound, exact(objective, *pair).detach(), detects=0.1)


def test_siwae_is_tighter_than_iwae_with_a_draw_for_each_of_each(pair):
    model, _, x = pair
    bound = measure(SIWAE(2), model, TwoModes(), x.expand(40_000, -1)).bound
    other = measure(IWAE(1), model, TwoModes(DiagonalNormalMixture), x.expand(40_000, -1)).bound
    assert scipy.stats.ttest_ind(bound.numpy(), other.numpy(), alternative="greater").pvalue < 1e-5


def test_selbo_is_the_elbo_with_less_noise_than_a_draw_for_each_of_each(pair):
    model, _, x = pair
    guide = TwoModes(DiagonalNormalMixture)
    bound, other = (measure(objective, model, guide, x.expand(40_000, -1)).bound for objective in (SELBO(2), ELBO(1)))
    error = math.hypot(bound.std().item(), other.std().item()) / 200.0
    assert abs(bound.mean() - other.mean()) < 4.42 * error
    assert error < 0.02
    assert bound.var() < 0.7 * other.var()


class Labelled(nn.Module):
    """A latent label and a latent number, in both programs; the guide of the number looks at the label, too."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.2, -0.4, 0.9]))
        self.loc = nn.Parameter(torch.tensor([-0.6, 0.8, 0.1]))
        self.centres = nn.Parameter(torch.tensor([-1.0, 0.0, 2.0]))

    def model(self, x):
        pyro.module("labelled", self)
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(torch.tensor([0.5, 0.2, 0.3])))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + self.centres[y], 0.8), obs=x)

    def guide(self, x):
        pyro.module("labelled", self)
        with pyro.plate("data", len(x), dim=-1):
            y = pyro.sample("y", dist.Categorical(logits=self.logits + x[:, None]), infer={"enumerate": "parallel"})
            pyro.sample("z", dist.Normal(self.loc[y] + 0.3 * x, 0.7))


class TestLabels:
    def test_selbo_is_stock_enumeration(self):
        """The same mean of the loss and of the gradient, of 2000 draws in groups of 25; two-sample z-tests at 1e-5."""
        programs = Labelled()
        x = torch.tensor([0.7, -1.1]).repeat(25)
        parameters = [*programs.parameters()]
        module = SELBO(3)(programs.model, programs.guide)
        stock = TraceEnum_ELBO(max_plate_nesting=1)
        found = [], []
        for _ in range(80):
            for values, loss in zip(
                found, (module(x), stock.differentiable_loss(programs.model, programs.guide, x)), strict=True
            ):
                values.append(torch.cat([loss.detach()[None], flat(loss, parameters)]) / 25)
        ours, theirs = map(torch.stack, found)
        error = torch.hypot(ours.std(0), theirs.std(0)) / 80**0.5
        assert ((ours.mean(0) - theirs.mean(0)).abs() < 4.42 * error + 1e-12).all()
        assert (error < 0.1).all()

    @both
    def test_each_label_has_as_many_particles_and_what_follows_is_drawn_anew(self, objective):
        programs = Labelled()
        weights = objective(6).evaluate(Call(programs.model, programs.guide, (torch.zeros(2),), {}, 6, PLATES)).weights
        y, z = (weights.guide.nodes[name]["value"] for name in ("y", "z"))
        assert torch.equal(y, torch.tensor([0, 1, 2, 0, 1, 2])[:, None].expand(6, 2))
        assert len(z.unique()) == 12

    def test_siwae_is_the_sum_over_labels(self):
        """So that the guide's probabilities do not matter."""
        programs = Labelled()
        x = torch.tensor([0.7, -1.1])
        losses = []
        for _ in range(2):
            losses.append(measure(SIWAE(3), programs.model, programs.guide, x).loss)
            with torch.no_grad():
                programs.logits.add_(torch.tensor([1.0, -2.0, 0.5]))
        torch.testing.assert_close(*losses)

    def test_a_label_that_is_sure_is_given(self):
        """A proposal without doubt leaves the bound of its label alone, though the others have an infinite weight."""
        programs = Labelled()
        x = torch.tensor([0.7, -1.1])
        with torch.no_grad():
            programs.logits.copy_(torch.tensor([-math.inf, 0.0, -math.inf]))
        measured = measure(SELBO(3), programs.model, programs.guide, x)
        pyro.set_rng_seed(1)
        labels = torch.arange(3)[:, None].expand(3, 2)
        weights = log_weights((programs.model, drawing(programs.guide, y=labels)), x, num_samples=3, plates=PLATES)
        torch.testing.assert_close(measured.bound, weights.total[1].detach())
        assert all(value.isfinite().all() for value in measured[:4])
        gradients = torch.autograd.grad(measured.loss, [programs.loc, programs.centres])
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("particles", [2, 6])
def test_the_mean_weight_of_siwae_is_p(pair, particles):
    model, guide, x = pair
    bound = measure(SIWAE(particles), model, guide, x.expand(40_000, -1)).bound
    assert_mean((bound - model.log_p(x)).exp(), 1.0, detects=0.1)


@both
def test_reconstruction_and_kl_are_the_means_over_the_mixture(objective, pair):
    model, guide, x = pair
    guide.requires_grad_(False)
    measured = measure(objective(2), model, guide, x.expand(40_000, -1))
    weights = log_weights((model, guide), x, num_samples=40_000)
    for found, expected in (
        (measured.reconstruction, weights.log_likelihood),
        (measured.kl, weights.log_proposal - weights.log_prior),
    ):
        error = found.std() / 200.0, expected.std().detach() / 200.0
        assert (found.mean() - expected.mean()).abs() < 4.42 * math.hypot(*error)
        assert math.hypot(*error) < 0.02


def test_each_component_is_drawn_as_often(pair):
    model, guide, x = pair
    with torch.no_grad():
        guide.loc.mul_(1000.0)
        guide.logits.copy_(torch.tensor([-5.0, 5.0]))
    evaluated = SIWAE(6).evaluate(Call(model, guide, (x.expand(3, -1),), {}, 6, PLATES))
    signs = evaluated.weights.guide.nodes["z"]["value"][..., 0].sign()
    assert torch.equal(signs, torch.tensor([-1.0, 1.0]).repeat(3)[:, None].expand(6, 3))


@pytest.mark.parametrize(("objective", "plain"), [(SELBO, ELBO), (SIWAE, IWAE)])
def test_without_a_choice_draws_are_plain(objective, plain):
    model = LinearGaussian()
    guide, x = GaussianGuide(model, shift=0.3), model.data(4)
    one, other = (measure(cls(3), model, guide, x)[:4] for cls in (objective, plain))
    torch.testing.assert_close(one, other)


@both
def test_it_trains_the_mixture_guide(objective):
    vae = VAE((4,), 2, guide=MixtureNormal, encoder=MLP, decoder=MLP)
    x = vae.model(size=40).detach()
    before = [value.detach().clone() for value in vae.parameters()]
    pyrovae.fit(vae, x, objective=objective(8), epochs=2, progress=False)
    assert not any(map(torch.equal, before, vae.parameters()))


def test_a_number_of_particles_that_is_no_multiple_is_refused(pair):
    model, guide, x = pair
    with refused("num_particles", 3, "'z'", 2, "SIWAE"):
        SIWAE(3)(model, guide)(x)


def test_components_that_cannot_be_reparameterised_are_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("c", dist.Poisson(2.0))
            pyro.sample("x", dist.Normal(rate, 1.0), obs=x)

    rates = nn.Parameter(torch.tensor([1.0, 4.0]))

    def guide(x):
        rate = pyro.param("rate", rates)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Poisson(rate)))

    with refused("'c'", "MixtureSameFamily", "SIWAE", 'estimator="score_function"'):
        SIWAE(2)(model, guide)(torch.zeros(3))


@pytest.mark.parametrize(
    ("inner", "names", "words"),
    [
        (True, ["z"], ["'z'", "plate"]),
        (False, ["z", "u"], ["'z', 'u'", "SIWAE"]),
    ],
)
def test_several_components_of_a_datum_are_refused(inner, names, words):
    def sites(draw):
        for name in names:
            if inner:
                with pyro.plate("inner", 2, dim=-2):
                    draw(name)
            else:
                draw(name)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            sites(lambda name: pyro.sample(name, dist.Normal(torch.zeros(()), 1.0)))
            pyro.sample("x", dist.Normal(torch.zeros(()), 1.0), obs=x)

    def guide(x):
        mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([-1.0, 1.0]), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            sites(lambda name: pyro.sample(name, mixture))

    with refused(*words):
        SIWAE(2)(model, guide)(torch.zeros(3))


class TestChoicesOfOtherForms:
    """What a discrete site of the guide may look like, beside a label."""

    def pair(self, prior, proposal):
        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", prior)
                pyro.sample("x", dist.Normal(z.sum(-1) if prior.event_dim else z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", proposal())

        return model, guide

    @both
    @pytest.mark.parametrize("trained", [True, False])
    def test_a_vector_of_choices_is_refused(self, objective, trained):
        def proposal():
            logits = pyro.param("logits", torch.zeros(3)) if trained else torch.zeros(3)
            return dist.Bernoulli(logits=logits).to_event(1)

        pair = self.pair(dist.Bernoulli(torch.full((3,), 0.4)).to_event(1), proposal)
        with refused("'z'", "Bernoulli", objective.__name__, "Categorical", 'ELBO(estimator="score_function")'):
            objective(8)(*pair)(torch.zeros(4))

    def test_the_remedies_for_it_are_right(self):
        """All 8 combinations as one label, and draws by a score function, against the sum."""
        prior, x = dist.Bernoulli(torch.tensor([0.4, 0.3, 0.8])), torch.tensor([0.7])
        outcomes = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        p = prior.log_prob(outcomes).sum(-1)
        q = torch.arange(8.0).log_softmax(0)
        expected = (q.exp() * (p + dist.Normal(outcomes.sum(-1), 1.0).log_prob(x) - q)).sum()

        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                z = outcomes[pyro.sample("z", dist.Categorical(logits=p))]
                pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Categorical(logits=pyro.param("logits", torch.arange(8.0))))

        assert -SELBO(8)(model, guide)(x).item() == pytest.approx(expected.item(), abs=1e-10)
        bound = measure(ELBO(estimator="score_function"), model, guide, x.expand(20_000)).bound
        assert_mean(bound, expected, detects=0.1)

    @both
    def test_a_mask_hides_the_density_and_not_the_probabilities(self, objective):
        hidden = torch.tensor([True, False])
        prior = dist.Bernoulli(0.4).expand([2]).mask(hidden)
        pair = self.pair(prior, lambda: dist.Bernoulli(pyro.param("p", torch.tensor(0.3))).expand([2]).mask(hidden))
        x, q = torch.tensor([0.7, 0.7]), torch.tensor([0.7, 0.3])
        likelihood = dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(torch.tensor(0.7))
        ratio = torch.tensor([0.6, 0.4]).log() - q.log()
        rows = torch.stack([likelihood + ratio, likelihood])
        expected = (q * rows).sum(-1) if objective is SELBO else (q.log() + rows).logsumexp(-1)
        torch.testing.assert_close(measure(objective(4), *pair, x).bound, expected, rtol=0, atol=1e-10)

    @both
    def test_outcomes_that_cannot_be_listed_are_refused(self, objective):
        def binomial(probability):
            return dist.Binomial(torch.tensor([1.0, 2.0]), torch.as_tensor(probability))

        pair = self.pair(binomial(0.4), lambda: binomial(pyro.param("p", torch.tensor(0.3))))
        with refused("'z'", "enumerate_support", 'ELBO(estimator="score_function")'):
            objective(6)(*pair)(torch.zeros(2))
