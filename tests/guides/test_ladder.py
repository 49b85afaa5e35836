"""The proposal that corrects the prior's layers, whose parameters both programs share."""

from copy import deepcopy
from functools import partial

import pyro
import pytest
import torch
from checks import POWER, QUANTILE, refused
from pyro import poutine
from torch import nn
from torch.distributions import Normal as Gaussian
from torch.nn.functional import softplus

from pyrovae.guides import Ladder
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO, IWAE
from pyrovae.priors import Hierarchical, StandardNormal
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")


def linear(in_shape, out_shape):
    return nn.Sequential(nn.Flatten(-1), nn.Linear(in_shape[0], torch.Size(out_shape).numel()), nn.Unflatten(-1, out_shape))


def made(latent_dim=2, upper=(3, 4), **parts):
    prior, guide = (
        partial(Hierarchical, upper=upper, network=linear),
        partial(Ladder, upper=upper, features=5, network=linear),
    )
    return VAE(
        (2,),
        latent_dim,
        **{"prior": prior, "guide": guide, "likelihood": Normal, "encoder": linear, "decoder": linear, **parts},
    )


def test_its_density_is_the_product_of_its_layers_with_the_priors():
    """Precisions add, and means are weighed by them; the highest layer is what the data say of it."""
    vae = made()
    guide, prior, x = vae.guide, vae.model.prior, torch.randn(6, 2)
    trace = poutine.trace(guide).get_trace(x)
    trace.compute_log_prob()
    z = {name: trace.nodes[name]["value"] for name in ("z", "z2", "z3")}
    assert [tuple(value.shape) for value in z.values()] == [(6, 2), (6, 3), (6, 4)]
    features = [guide.encoder(x)]
    features += [guide.networks[0](features[0])]
    features += [guide.networks[1](features[1])]
    for layer, (name, above) in enumerate({"z": "z2", "z2": "z3", "z3": None}.items()):
        loc, raw = guide.evidence[layer](features[layer]).chunk(2, -1)
        precision = (softplus(raw) + 1e-6) ** -2
        mean = loc * precision
        if above:
            prior_loc, prior_raw = prior.networks[layer](z[above]).unbind(-2)
            prior_precision = (softplus(prior_raw) + 1e-6) ** -2
            precision, mean = precision + prior_precision, mean + prior_loc * prior_precision
        expected = Gaussian(mean / precision, precision**-0.5).log_prob(z[name]).sum(-1)
        torch.testing.assert_close(trace.nodes[name]["log_prob"], expected)


@pytest.mark.parametrize("estimator", ["stl", "dreg", "score_function"])
@pytest.mark.parametrize("objective", [partial(ELBO, 1), partial(IWAE, 3)])
def test_estimators_have_the_same_mean_gradient_of_what_both_programs_share(objective, estimator):
    """Two-sample z-tests at 1e-5 for each parameter of the prior's layer and of the guide; ``stl`` of IWAE is biased."""
    if estimator == "stl" and objective.func is IWAE:
        pytest.skip("it is biased")
    vae = made(1, (1,))
    with torch.no_grad():
        for value in vae.parameters():
            value.copy_(0.4 * torch.randn_like(value))
    x = torch.tensor([[0.6, -0.8]]).expand(4000, 2)
    parameters = [*vae.model.prior.parameters(), *vae.guide.parameters()]
    means, errors = [], []
    for name in ("reparameterized", estimator):
        module = objective(estimator=name)(vae.model, vae.guide)
        draws = []
        for _ in range(50):
            gradients = torch.autograd.grad(module(x) / len(x), parameters)
            draws.append(torch.cat([gradient.flatten() for gradient in gradients]))
        draws = torch.stack(draws)
        means.append(draws.mean(0))
        errors.append(draws.std(0) / 50**0.5)
    error = torch.hypot(*errors)
    assert ((QUANTILE + POWER) * error < 0.3 * means[0].abs().max()).all()
    assert ((means[0] - means[1]).abs() < QUANTILE * error + 1e-12).all()


def test_it_uses_the_priors_parameters_and_does_not_own_them():
    vae = made()
    assert not {*vae.guide.parameters()} & {*vae.model.parameters()}
    assert not any("prior" in name for name in vae.guide.state_dict())
    x = torch.randn(4, 2)
    other = deepcopy(vae)
    pyro.set_rng_seed(1)
    before = vae.guide(x)
    with torch.no_grad():
        other.model.prior.networks[0][1].bias.add_(1.0)
    for pair, same in ((vae, True), (other, False)):
        pyro.set_rng_seed(1)
        assert torch.equal(pair.guide(x), before) == same


def test_without_a_prior_it_is_refused():
    with refused("VAE(..., guide=Ladder)"):
        Ladder((3,), 2, MLP)(torch.zeros(1, 3))


@pytest.mark.parametrize("upper", [(), (3, 0)])
def test_layers_that_are_none_are_refused(upper):
    with refused("upper", upper, 1):
        Ladder((3,), 2, MLP, upper=upper)


@pytest.mark.parametrize(
    ("prior", "found"),
    [(StandardNormal, "StandardNormal"), (partial(Hierarchical, upper=(3,)), "upper=(3,)")],
)
def test_a_prior_of_other_layers_is_refused(prior, found):
    with refused(found, "prior=Hierarchical", "upper=(3, 4)"):
        made(prior=prior)
