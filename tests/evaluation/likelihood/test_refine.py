"""Refined proposals, on a program whose best ones are known."""

from functools import partial

import numpy as np
import pyro
import pytest
import torch
from checks import refused, warned
from torch import nn

import pyrovae
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.evaluation import inference_gaps, refine
from pyrovae.guides import DiagonalNormal, FullRankNormal, Hierarchical
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.vae import VAE

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]
network = partial(MLP, hidden=(6,))
weight = torch.tensor([[1.5, 1.2], [0.4, 1.0], [0.5, 0.5], [0.8, 0.9]], dtype=torch.float64)
noise = 0.5


def linear(in_shape, out_shape):
    layer = nn.Linear(*in_shape, *out_shape)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.zero_()
    return layer


def linear_vae(guide=DiagonalNormal):
    likelihood = partial(Normal, scale=noise)
    return VAE((4,), 2, likelihood=likelihood, guide=guide, encoder=network, decoder=linear)


def exact(x):
    """log p(x), and what the best normal with independent dimensions falls short of it."""
    covariance = weight @ weight.T + noise**2 * torch.eye(4)
    precision = torch.eye(2) + weight.T @ weight / noise**2
    shortfall = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    return torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(x).numpy(), shortfall.item()


@pytest.mark.parametrize(("guide", "falls_short"), [(DiagonalNormal, True), (FullRankNormal, False)])
def test_the_best_proposal_of_the_family_is_found(guide, falls_short):
    vae = linear_vae(guide)
    x = vae.model(size=20).detach()
    log_p, shortfall = exact(x)
    gaps = inference_gaps(vae, x, 4000, steps=500, num_particles=32)
    expected = shortfall if falls_short else 0.0
    assert shortfall > 0.1
    assert gaps.amortization.min() > 1.0
    np.testing.assert_allclose(log_p - gaps.refined.bounds[1], expected, atol=0.05)
    np.testing.assert_allclose(gaps.approximation, gaps.refined.log_p - gaps.refined.bounds[1])
    if not falls_short:
        np.testing.assert_allclose(gaps.refined.log_p, log_p, atol=0.02)
    text = str(gaps)
    assert f"{gaps.amortization.mean():.4f}" in text
    assert f"{gaps.approximation.mean():.4f}" in text


def test_nothing_of_the_pair_is_changed_and_no_gradient_is_handed_on():
    vae = linear_vae()
    x = vae.model(size=5).detach()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    random = torch.get_rng_state()
    guide = refine(vae, steps=3)
    guide.params(x)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(value.grad is None for value in vae.parameters())
    assert vae.training
    assert not guide(x).requires_grad


def test_one_batch_is_refined_once(monkeypatch):
    vae = linear_vae()
    guide = refine(vae, steps=3)
    refined = []
    monkeypatch.setattr(guide, "_refined", lambda x, given: refined.append(len(x)) or vae.guide.encode(x).detach())
    x = vae.model(size=6).detach()
    pyrovae.log_likelihood((vae.model, guide), x, 200, max_rows=600, compile=False)
    assert refined == [6, 6]  # the batch that the pair is looked at with, and the one that is weighed
    guide(x)
    guide(x)
    assert len(refined) == 3
    x.add_(1.0)
    guide(x)
    assert len(refined) == 4


def test_data_that_are_given_a_context_and_a_mask():
    vae = VAE((4,), 2, likelihood=Normal, encoder=network, decoder=network, context_shape=(3,))
    x, c, mask = torch.randn(8, 4), torch.randn(8, 3), torch.rand(8, 4) < 0.7
    data = {"x": torch.where(mask, x, torch.nan), "c": c, "mask": mask}
    gaps = inference_gaps(vae, data, 500, steps=200)
    assert gaps.amortization.mean() > 0.0
    assert (gaps.approximation > -0.2).all()


def test_several_layers():
    prior = pyrovae.priors.Hierarchical
    vae = VAE((4,), 2, prior=prior, guide=Hierarchical, likelihood=Normal, encoder=network, decoder=network)
    gaps = inference_gaps(vae, vae.model(size=5).detach(), 500, steps=100)
    assert gaps.amortization.mean() > 0.0


def test_it_runs_eagerly_where_it_is_asked_to_be_recorded():
    vae = linear_vae()
    guide = refine(vae, steps=3)
    with warned("refine(...)", "gradients", category=NotCompiledWarning):
        estimate = pyrovae.log_likelihood((vae.model, guide), vae.model(size=5).detach(), 100, compile=True)
    assert np.isfinite(estimate.log_p).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, ["steps", 0, 1]),
        ({"num_particles": 0}, ["num_particles", 0, 1]),
        ({"learning_rate": 0.0}, ["learning_rate", "0.0"]),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    vae = linear_vae()
    with refused(*words):
        refine(vae, **options)


def test_a_guide_that_does_not_tell_its_parameters_is_refused():
    vae = linear_vae()

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))

    with refused("function", "encode(x, c, mask)", "draw(params)"):
        refine((vae.model, guide))
