"""log p(x) with the programs recorded: the same numbers, from the same draws."""

from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import guide_for, members, prior_for, refused, slow_but, warned
from programs import GaussianGuide, LinearGaussian, Tutorial, WithPixelPlate, functions
from torch.utils.data import TensorDataset

import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.priors
from pyrovae import VAE, log_likelihood
from pyrovae.compiling.fallback import NotCompiledWarning
from pyrovae.guides import Guide
from pyrovae.likelihoods import Likelihood
from pyrovae.networks import MLP
from pyrovae.priors import Prior

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]


def swapped(**parts):
    small = partial(MLP, hidden=(3,))
    vae = VAE((3,), latent_dim=2, **{"encoder": small, "decoder": small, **parts})
    return vae.model, vae.guide


def pair(structure=LinearGaussian):
    model = structure()
    return model, GaussianGuide(model, shift=0.3)


def methods():
    tutorial = Tutorial()
    return tutorial.model, tutorial.guide


programs = {
    **{f"prior {cls.__name__}": partial(swapped, prior=cls, guide=guide_for(cls)) for cls in members(pyrovae.priors, Prior)},
    **{f"likelihood {cls.__name__}": partial(swapped, likelihood=cls) for cls in members(pyrovae.likelihoods, Likelihood)},
    **{f"guide {cls.__name__}": partial(swapped, guide=cls, prior=prior_for(cls)) for cls in members(pyrovae.guides, Guide)},
    "modules": pair,
    "inner plate": partial(pair, WithPixelPlate),
    "methods": methods,
    "functions": lambda: functions(*pair()),
}


soon = {
    *("prior Mixture", "prior Autoregressive", "prior Flow", "prior Vamp"),
    *("guide FullRankNormal", "guide Hierarchical", "guide VonMisesFisher"),
    *("likelihood Bernoulli", "likelihood StudentT", "likelihood ZeroInflatedNegativeBinomial"),
    *("likelihood DiscretizedLogisticMixture", "modules", "inner plate", "methods", "functions"),
}
"""Programs of kinds of their own; test_parts records one of each part, with its gradient."""
fused = ("prior Mixture", "likelihood StudentT", "guide FullRankNormal", "functions")


@pytest.mark.parametrize("name", slow_but(lambda name: name in soon, programs))
def test_the_same_estimates(name, unfused):
    """On 7 data in batches of at most 4, and 50 draws in pieces of at most 3: neither divides."""
    assert_the_same_estimates(*programs[name]())


@pytest.mark.parametrize("name", slow_but(lambda name: name == "prior Mixture", fused))
def test_the_same_estimates_fused(name):
    assert_the_same_estimates(*programs[name]())


def assert_the_same_estimates(model, guide):
    binary = getattr(getattr(model, "likelihood", None), "filler", 0.0) == 0.0  # which every other likelihood can have
    x = torch.rand(7, 3).round() if binary else torch.rand(7, 3)
    estimate = partial(log_likelihood, (model, guide), x, 50, num_particles=(5,), max_rows=12, max_weights=200)
    eager, fused = estimate(compile=False), estimate(compile=True)
    np.testing.assert_allclose(fused.log_p, eager.log_p, rtol=0, atol=1e-10)
    np.testing.assert_allclose(fused.bounds[5], eager.bounds[5], rtol=0, atol=1e-10)
    np.testing.assert_allclose(fused.effective_sample_size, eager.effective_sample_size, rtol=1e-8)


def test_trained_parameters_of_functions_are_those_that_are_weighed(unfused):
    model, guide = functions(*pair())
    x = torch.randn(4, 3)
    before = log_likelihood((model, guide), x, 20, compile=True).log_p
    with torch.no_grad():
        pyro.get_param_store()._params["offset"].add_(0.5)
    after, eager = (log_likelihood((model, guide), x, 20, compile=compile).log_p for compile in (True, False))
    assert (before != after).all()
    np.testing.assert_allclose(after, eager, rtol=0, atol=1e-10)


def test_one_recording_whatever_is_left_over(monkeypatch, unfused):
    recorded = []
    fuse = pyrovae.evaluation.likelihood.draws.fuse
    monkeypatch.setattr("pyrovae.evaluation.likelihood.draws.fuse", lambda *args: recorded.append(1) or fuse(*args))
    estimate = log_likelihood(pair(), torch.randn(7, 3), 50, max_rows=12, max_weights=200, compile=True)
    assert len(estimate.log_p) == 7
    assert len(recorded) == 1


def test_data_that_are_read_as_they_go(unfused):
    x = torch.randn(7, 3)
    model, guide = pair()
    held, read = (
        log_likelihood((model, guide), data, 50, max_weights=200, compile=True).log_p for data in (x, TensorDataset(x))
    )
    np.testing.assert_array_equal(held, read)


def test_what_cannot_be_recorded_runs_eagerly_after_a_warning():
    class Branching(LinearGaussian):
        def mean(self, z):
            return super().mean(z) if z.sum() > 0 else super().mean(z) * 1.0

    model = Branching()
    guide, x = GaussianGuide(model), torch.randn(4, 3)
    with warned("test_compiled.py", "return super().mean(z) if z.sum() > 0", category=NotCompiledWarning):
        estimate = log_likelihood((model, guide), x, 20, compile=True)
    np.testing.assert_allclose(estimate.log_p, model.log_p(x), atol=1e-10)


def test_a_weight_that_is_not_a_number_names_its_site():
    class Wrong(LinearGaussian):
        def mean(self, z):
            return torch.where(z.sum(-1, keepdim=True) > 5.0, torch.nan, super().mean(z))

    model = Wrong()
    with refused("'x'", "model", "NaN"):
        log_likelihood((model, GaussianGuide(model, widen=2.0)), torch.randn(4, 3), 500, compile=True, max_rows=400)


def test_a_scaled_density_is_refused():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.poutine.scale(scale=2.0):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with refused("'x'", "poutine.scale"):
        log_likelihood((model, guide), torch.randn(4), 20, compile=True)
