"""Programs that are given a context: what each part makes of it, and that it goes wherever the data go."""

import math
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import refused
from pyro import poutine
from pyro.infer import SVI
from torch import nn
from torch.nn.functional import one_hot

import pyrovae
from pyrovae.data import Array, Digits
from pyrovae.evaluation import posterior_means, reconstructions
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder
from pyrovae.networks.conditional_network import ConditionalNetwork
from pyrovae.objectives import ELBO, IWAE
from pyrovae.priors import Flow, LearnedNormal, StandardNormal, Vamp
from pyrovae.vae import VAE

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]
network = partial(MLP, hidden=(6,))
labels = torch.arange(12) % 3


def contexts():
    return one_hot(labels, 3)


def conditional(prior=StandardNormal, **parts):
    return VAE((4,), 2, prior=prior, context_shape=(3,), **{"encoder": network, "decoder": network, **parts})


@pytest.fixture
def x():
    return torch.bernoulli(torch.full((12, 4), 0.5))


class TestConditionalNetwork:
    def test_a_vector_is_joined_by_the_context(self):
        conditioned = ConditionalNetwork(network, (3,), (2,), (5, 2))
        x, c = torch.randn(7, 12, 2), torch.randn(12, 3)
        joined = torch.cat([x, c.expand(7, 12, 3)], -1)
        torch.testing.assert_close(conditioned(x, c), conditioned.network(joined))

    @pytest.mark.parametrize("channels", [(), (2,)])
    def test_a_picture_is_joined_by_one_that_is_drawn_of_the_context(self, channels):
        conditioned = ConditionalNetwork(ConvEncoder, (3,), (*channels, 8, 6), (4,))
        x, c = torch.randn(5, *channels, 8, 6), torch.randn(5, 3)
        drawn = conditioned.drawn(c).reshape(5, 1, 8, 6)
        joined = torch.cat([x.reshape(5, -1, 8, 6), drawn], 1)
        assert joined.shape[1] == math.prod(channels) + 1
        torch.testing.assert_close(conditioned(x, c), conditioned.network(joined))

    @pytest.mark.parametrize("channels", [(), (2,)])
    def test_a_picture_is_joined_by_a_picture(self, channels):
        conditioned = ConditionalNetwork(ConvEncoder, (*channels, 8, 6), (8, 6), (4,))
        x, c = torch.randn(5, 8, 6), torch.randn(5, *channels, 8, 6)
        joined = torch.cat([x[:, None], c.reshape(5, -1, 8, 6)], 1)
        assert conditioned.drawn is None
        torch.testing.assert_close(conditioned(x, c), conditioned.network(joined))

    def test_a_context_of_another_shape_is_refused(self):
        with refused((5, 2), "(B, 3)", "context_shape=(2,)"):
            ConditionalNetwork(network, (3,), (2,), (5,))(torch.randn(5, 2), torch.randn(5, 2))


@pytest.mark.parametrize(
    "prior", [StandardNormal, LearnedNormal, Flow, partial(Flow, kind="nsf"), partial(Vamp, components=3)]
)
class TestPrograms:
    def test_every_parameter_is_trained_by_data_with_contexts(self, prior, x):
        vae = conditional(prior)
        loss = IWAE(3)(vae.model, vae.guide)
        loss(x, c=contexts()).backward()
        assert [name for name, value in vae.named_parameters() if value.grad is None or not value.grad.any()] == []

    def test_the_context_matters_and_its_rows_belong_to_the_data(self, prior, x):
        vae = conditional(prior)
        with torch.no_grad():
            weights = [
                pyrovae.log_weights(vae, x[rows], c=contexts()[rows]).total
                for rows in (torch.arange(12), torch.arange(12).roll(1))
                if not pyro.set_rng_seed(0)
            ]
            other = pyrovae.log_likelihood(vae, {"x": x, "c": contexts().roll(1, 1)}, 100).log_p
        here = pyrovae.log_likelihood(vae, {"x": x, "c": contexts()}, 100).log_p
        assert weights[0].shape == weights[1].shape == (1, 12)
        assert abs(here - other).min() > 1e-4

    def test_one_draw_for_each_context(self, prior):
        vae = conditional(prior)
        assert vae.model(c=contexts()).shape == (12, 4)


def test_fit_and_estimates_take_them_along_recorded_or_not(x, unfused):
    found = []
    for compile in (False, True):
        pyro.set_rng_seed(0)
        vae = conditional(LearnedNormal)
        data = {"x": x, "c": contexts()}
        history = pyrovae.fit(vae, data, data, epochs=2, batch_size=5, compile=compile, progress=False, objective=IWAE(2))
        estimate = pyrovae.log_likelihood(vae, data, 40, compile=compile, max_rows=100)
        found.append([history.metrics[-1]["validation_bound"], *estimate.log_p])
    torch.testing.assert_close(torch.tensor(found[0]), torch.tensor(found[1]))


def trace_of(prior, c):
    program = pyro.plate("data", len(c), dim=-1)(prior.given)
    trace = poutine.trace(program).get_trace(c)
    trace.compute_log_prob()
    return trace.nodes["z"]


def test_the_learned_normal_prior_is_a_normal_of_the_context():
    prior = conditional(LearnedNormal).model.prior
    with torch.no_grad():
        prior.loc.add_(torch.randn(2))
        prior.log_scale.add_(0.1)
    c = contexts().double()
    site = trace_of(prior, c)
    loc, log_scale = prior.network(c).unbind(-2)
    expected = torch.distributions.Normal(prior.loc + loc, (prior.log_scale + log_scale).exp())
    torch.testing.assert_close(site["log_prob"], expected.log_prob(site["value"]).sum(-1))
    assert torch.equal(loc[0], loc[3])
    assert not torch.equal(loc[0], loc[1])


def test_a_flow_given_a_context_integrates_to_one():
    prior = VAE((4,), 1, prior=Flow, encoder=network, decoder=network, context_shape=(3,)).model.prior
    z = torch.linspace(-12, 12, 4001)[:, None]
    totals = []
    for row in torch.eye(3):
        conditioned = poutine.condition(prior.given, data={"z": z})
        trace = poutine.trace(pyro.plate("data", len(z), dim=-1)(conditioned)).get_trace(row.expand(len(z), 3))
        trace.compute_log_prob()
        totals.append(trace.nodes["z"]["log_prob"].exp())
    densities = torch.stack(totals)
    torch.testing.assert_close(densities.sum(1) * (z[1] - z[0]), torch.ones(3), atol=1e-4, rtol=0)
    assert (densities[0] - densities[1]).abs().max() > 1e-3


def test_vamp_has_a_context_for_each_pseudo_input():
    vae = conditional(partial(Vamp, components=5))
    prior = vae.model.prior
    site = trace_of(prior, contexts())
    each = vae.guide.propose(prior.pseudo_inputs, prior.pseudo_contexts).log_prob(site["value"][:, None])
    torch.testing.assert_close(site["log_prob"], each.logsumexp(-1) - math.log(5))


def test_posterior_means_and_reconstructions_are_those_of_the_contexts(x):
    vae = conditional()
    data = {"x": x, "c": contexts()}
    with torch.no_grad():
        expected = vae.guide.propose(x, contexts()).mean
    torch.testing.assert_close(posterior_means(vae, data, max_rows=5), expected)
    assert reconstructions(vae, data).shape == x.shape


def test_gradient_statistics_are_those_of_the_contexts(x):
    vae = conditional()
    options = {"num_samples": 3, "seed": 1}
    found = pyrovae.gradient_statistics(vae, {"x": x, "c": contexts()}, IWAE(2), **options)
    other = pyrovae.gradient_statistics(vae, {"x": x, "c": contexts().roll(1, 1)}, IWAE(2), **options)
    assert found.mean.keys() == other.mean.keys()
    assert not any(np.array_equal(value, other.mean[name]) for name, value in found.mean.items())


def test_pyro_trains_it_too(x):
    vae = conditional()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    first = svi.step(x, contexts())
    assert math.isfinite(first)
    assert svi.evaluate_loss(x, c=contexts()) < first * 2


def test_convolutions_are_conditioned():
    vae = VAE((2, 8, 6), 3, encoder=ConvEncoder, decoder=ConvDecoder, context_shape=(3,))
    x = vae.model(c=contexts()).detach()
    assert x.shape == (12, 2, 8, 6)
    ELBO()(vae.model, vae.guide)(x, c=contexts()).backward()
    assert all(value.grad.isfinite().all() for value in vae.parameters())


def test_it_starts_at_a_mean():
    vae = conditional()
    mean = torch.tensor([0.2, 0.4, 0.6, 0.8])
    with torch.no_grad():
        for layer in vae.model.decoder.network.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.zero_()
    vae.start_at_mean(mean)
    torch.testing.assert_close(vae.model.decode(torch.randn(12, 2), contexts()).mean, mean.expand(12, 4))


def test_the_labels_are_the_contexts_of_a_data_set():
    data = Digits()
    data.condition_on_labels(10)
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.given["c"], one_hot(part.labels, 10).float())
    batch = next(data.train.batches(7, shuffle=True))
    first = (data.train.x == batch["x"][0]).flatten(1).all(1).nonzero()[0, 0]
    assert torch.equal(batch["c"][0], data.train.given["c"][first])
    assert data.test.fixed_draw().keys() == {"x", "c"}


@pytest.mark.parametrize("shape", [(9,), (10, 2)])
def test_labels_that_do_not_fit_are_refused(shape):
    with refused(shape, "Digits", "(10,)"):
        Digits().condition_on_labels(*shape)


def test_data_without_labels_have_none_to_condition_on(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((40, 3)))
    with refused("x", "labels", "context_shape"):
        Array(str(tmp_path / "x.npy")).condition_on_labels(2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["(3,)", "c=..."]),
        ({"c": torch.zeros(12, 2)}, [(12, 2), "(B, 3)", "context_shape=(2,)"]),
        ({"c": torch.zeros(5, 3)}, ["c", 5, 12]),
    ],
    ids=["none", "shape", "rows"],
)
def test_a_context_that_does_not_fit_is_refused(given, words, x):
    vae = conditional()
    with refused(*words):
        ELBO()(vae.model, vae.guide)(x, **given)


def test_a_context_that_nothing_was_built_for_is_refused(x):
    vae = VAE((4,), 2)
    with refused((12, 3), "context_shape=(3,)"):
        ELBO()(vae.model, vae.guide)(x, c=contexts())


def test_a_program_of_ones_own_is_given_what_the_data_have_by_name(x):
    """Any names, any programs: here a regression with a latent slope for each datum."""

    def model(x, covariate):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = z[..., None] * covariate
            pyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=x)

    def guide(x, covariate):
        slope = pyro.param("slope", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * (x * covariate).sum(-1), 0.5))

    covariate = torch.randn(12, 4)
    data = {"x": torch.randn(12, 1) * covariate + 0.3 * torch.randn(12, 4), "covariate": covariate}
    history = pyrovae.fit((model, guide), data, epochs=30, batch_size=6, progress=False)
    assert history.metrics[-1]["train_bound"] > history.metrics[0]["train_bound"]
    scale = pyro.param("scale").detach()
    exact = dist.MultivariateNormal(
        torch.zeros(4), covariate[:, :, None] * covariate[:, None] + scale**2 * torch.eye(4)
    ).log_prob(data["x"])
    estimate = pyrovae.log_likelihood((model, guide), data, 20_000)
    assert (abs(torch.from_numpy(estimate.log_p) - exact) < 5 * torch.from_numpy(estimate.standard_error)).all()
