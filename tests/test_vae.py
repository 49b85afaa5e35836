"""The two programs made of parts, and that they are Pyro programs like any other."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import measure, refused
from pyro import poutine
from pyro.infer import SVI, Predictive, RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn

from pyrovae.likelihoods import Bernoulli, Normal
from pyrovae.networks import MLP, ConvDecoder, ConvEncoder
from pyrovae.objectives import ELBO, IWAE
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")
network = partial(MLP, hidden=(8,))


def small_vae(**parts):
    return VAE((4,), latent_dim=2, **{"encoder": network, "decoder": network, **parts})


@pytest.fixture
def vae():
    return small_vae()


@pytest.fixture
def x():
    """Binary data with two clusters."""
    return torch.bernoulli(torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9]]).repeat(20, 1))


@pytest.fixture
def adam():
    return pyro.optim.Adam({"lr": 0.05})


def values(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def unmoved(module, before):
    return [name for name, value in module.named_parameters() if torch.equal(value, before[name])]


class TestParts:
    @pytest.mark.parametrize("event_shape", [(4,), (8, 6), (2, 8, 6)])
    @pytest.mark.parametrize("likelihood", [Bernoulli, Normal, partial(Normal, learned="pixel")])
    @pytest.mark.parametrize("latent_dim", [1, 3])
    def test_sizes_wire_themselves(self, event_shape, likelihood, latent_dim):
        vae = VAE(event_shape, latent_dim, likelihood=likelihood, encoder=network, decoder=network)
        x = vae.model(size=5)
        assert x.shape == (5, *event_shape)
        z = vae.guide(x)
        assert z.shape == (5, latent_dim)
        decoded = vae.model.decode(z)
        assert decoded.batch_shape == (5,)
        assert decoded.event_shape == event_shape

    def test_any_module_serves_as_a_network(self):
        def linear(in_shape, out_shape):
            return nn.Sequential(nn.Linear(*in_shape, out_shape.numel()), nn.Unflatten(-1, out_shape))

        vae = small_vae(encoder=lambda i, o: linear(i, torch.Size(o)), decoder=lambda i, o: linear(i, torch.Size(o)))
        assert measure(ELBO(3), vae.model, vae.guide, vae.model(size=5)).bound.shape == (5,)

    def test_convolutions(self):
        vae = VAE((7, 5), 2, encoder=ConvEncoder, decoder=ConvDecoder)
        assert measure(IWAE(3), vae.model, vae.guide, vae.model(size=5)).bound.isfinite().all()

    def test_an_event_shape_may_be_a_list(self):
        assert VAE([2, 3], 2, encoder=network, decoder=network).model(size=4).shape == (4, 2, 3)

    def test_parameters_have_distinct_names_in_pyros_store(self, vae, x):
        Trace_ELBO().loss(vae.model, vae.guide, x)
        expected = {name for name, _ in vae.named_parameters()}
        assert {name.replace("$$$", ".") for name in pyro.get_param_store()} == expected

    def test_a_state_dict_makes_the_same_programs(self, vae, x):
        other = small_vae()
        assert measure(ELBO(), other.model, other.guide, x).loss != measure(ELBO(), vae.model, vae.guide, x).loss
        other.load_state_dict(vae.state_dict())
        assert measure(ELBO(), other.model, other.guide, x).loss == measure(ELBO(), vae.model, vae.guide, x).loss

    @pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 4, 1), (5, 2, 2)])
    def test_data_of_another_shape_are_refused(self, vae, shape):
        with refused(shape, "(B, 4)", f"event_shape={shape[1:]}"):
            vae.model(torch.zeros(shape))

    def test_the_programs_are_those_of_the_equations(self, vae, x):
        trace = poutine.trace(vae.model).get_trace(x)
        z = trace.nodes["z"]["value"]
        trace.compute_log_prob()
        torch.testing.assert_close(trace.nodes["z"]["log_prob"], dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
        logits = vae.model.decoder(z)
        torch.testing.assert_close(trace.nodes["x"]["log_prob"], dist.Bernoulli(logits=logits).log_prob(x).sum(-1))
        assert trace.nodes["x"]["is_observed"]


class TestStartAtMean:
    @pytest.mark.parametrize("likelihood", [Bernoulli, Normal, partial(Normal, learned="pixel", scale=0.3)])
    def test_the_untrained_decoder_predicts_it(self, likelihood):
        vae = small_vae(likelihood=likelihood)
        with torch.no_grad():
            vae.model.decoder.layers[-1].weight.zero_()
        mean = torch.tensor([0.1, 0.4, 0.5, 0.9])
        vae.start_at_mean(mean)
        torch.testing.assert_close(vae.model.decode(torch.randn(3, 2)).mean, mean.expand(3, 4))

    def test_a_decoder_that_cannot_is_refused(self):
        vae = small_vae(decoder=lambda in_shape, out_shape: nn.Linear(*in_shape, *out_shape))
        with refused("Linear", "start_output_at(value)"):
            vae.start_at_mean(torch.zeros(4))

    def test_a_mean_of_another_shape_is_refused(self, vae):
        with refused("(3,)", "(B, 4)"):
            vae.start_at_mean(torch.zeros(3))


class TestStockPyro:
    def test_svi_lowers_the_loss(self, vae, x, adam):
        svi = SVI(vae.model, vae.guide, adam, Trace_ELBO())
        before, start = measure(ELBO(100), vae.model, vae.guide, x).loss, values(vae)
        for _ in range(25):
            svi.step(x)
        assert measure(ELBO(100), vae.model, vae.guide, x).loss < 0.9 * before
        assert unmoved(vae, start) == []

    @pytest.mark.parametrize("objective", [ELBO(2), ELBO(2, analytic_kl=True), IWAE(3)])
    def test_svi_takes_our_objectives(self, vae, x, adam, objective):
        svi = SVI(vae.model, vae.guide, adam, objective)
        before, start = measure(ELBO(100), vae.model, vae.guide, x).loss, values(vae)
        for _ in range(25):
            svi.step(x)
        assert measure(ELBO(100), vae.model, vae.guide, x).loss < 0.9 * before
        assert unmoved(vae, start) == []
        pyro.set_rng_seed(1)
        loss = svi.evaluate_loss(x)
        assert loss == pytest.approx(measure(objective, vae.model, vae.guide, x).loss.item())

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (ELBO(5), Trace_ELBO(5, vectorize_particles=True, max_plate_nesting=1)),
            (ELBO(5, analytic_kl=True), TraceMeanField_ELBO(5, vectorize_particles=True, max_plate_nesting=1)),
            (IWAE(5), RenyiELBO(0.0, 5, vectorize_particles=True, max_plate_nesting=1)),
        ],
        ids=["ELBO", "analytic KL", "IWAE"],
    )
    def test_values_agree(self, vae, x, ours, theirs):
        value = measure(ours, vae.model, vae.guide, x).loss.item()
        pyro.set_rng_seed(1)
        assert value == pytest.approx(theirs.loss(vae.model, vae.guide, x), abs=1e-8)

    def test_stock_modules_give_the_same_gradient(self, vae, x):
        value = measure(ELBO(5), vae.model, vae.guide, x).loss
        pyro.set_rng_seed(1)
        stock = Trace_ELBO(5, vectorize_particles=True, max_plate_nesting=1)(vae.model, vae.guide)(x)
        gradients = [torch.autograd.grad(loss, [*vae.parameters()]) for loss in (value, stock)]
        torch.testing.assert_close(*gradients)

    @pytest.mark.parametrize("parallel", [False, True])
    def test_predictive_reconstructs(self, vae, x, parallel):
        samples = Predictive(vae.model, guide=vae.guide, num_samples=7, parallel=parallel)(x)
        assert samples["z"].shape == (7, len(x), 2)
        assert torch.equal(samples["x"], x.expand(7, *x.shape))

    @pytest.mark.parametrize("parallel", [False, True])
    def test_predictive_generates(self, vae, parallel):
        samples = Predictive(vae.model, num_samples=7, parallel=parallel)(size=5)
        assert samples["z"].shape == (7, 5, 2)
        assert samples["x"].shape == (7, 5, 4)

    def test_conditioning(self, vae):
        z = torch.randn(5, 2)
        trace = poutine.trace(poutine.condition(vae.model, data={"z": z})).get_trace(size=5)
        assert torch.equal(trace.nodes["z"]["value"], z)
        torch.testing.assert_close(trace.nodes["x"]["fn"].base_dist.logits, vae.model.decoder(z))

    @pytest.mark.parametrize("objective", [ELBO(2), Trace_ELBO(), IWAE(3)])
    def test_an_automatic_guide(self, vae, x, adam, objective):
        guide = AutoNormal(vae.model)
        svi = SVI(vae.model, guide, adam, objective)
        svi.step(x)
        start = values(guide)
        svi.step(x)
        assert len(start) == 2
        assert unmoved(guide, start) == []

    def test_an_automatic_guide_in_our_module(self, vae, x):
        guide = AutoNormal(vae.model)
        loss = ELBO(2)(vae.model, guide)
        loss(x).backward()
        assert {*guide.parameters()} <= {*loss.parameters()}
        assert all(parameter.grad.norm() > 0.0 for parameter in guide.parameters())
