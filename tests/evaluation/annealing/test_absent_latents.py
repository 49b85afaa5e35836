"""Latents that are masked in both programs, as some data do not have them: what is left is log p(x) of the others."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import path_of, starts

import pyrovae
from pyrovae.evaluation import ImportanceSamplingWarning, annealed_importance_sampling

pytestmark = pytest.mark.usefixtures("float64")
SHARES = (0.2, 0.3, 0.5)
STEPS = 3


class Labels:
    """A label that is known of every second datum, by Pyro's ``obs_mask``, beside a normal latent."""

    @staticmethod
    def model(x, y, known):
        with pyro.plate("data", len(x)):
            label = pyro.sample("y", dist.Categorical(torch.tensor(SHARES)), obs=y, obs_mask=known)
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + 2.0 * label, 0.5), obs=x)

    @staticmethod
    def guide(x, y, known):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=~known):
                pyro.sample("y_unobserved", dist.Categorical(torch.tensor([0.6, 0.2, 0.2]).expand(len(x), 3)))
            pyro.sample("z", dist.Normal(0.2 * x, 1.0))

    @staticmethod
    def data(number):
        label = torch.arange(number) % 3
        return {"x": torch.linspace(-1.0, 5.0, number), "y": label, "known": torch.arange(number) % 2 == 0}

    @staticmethod
    def log_p(x, y, known):
        joint = torch.tensor(SHARES).log() + dist.Normal(2.0 * torch.arange(3), 1.25**0.5).log_prob(x[:, None])
        return torch.where(known, joint.gather(1, y[:, None])[:, 0], joint.logsumexp(1))


class Sequences:
    """A random walk of three steps at most, whose masks are of the distributions."""

    @staticmethod
    def model(x, there):
        with pyro.plate("data", len(x)):
            z = torch.zeros(len(x), 1)
            for t in range(STEPS):
                now = slice(t, t + 1)
                z = pyro.sample(f"z{t}", dist.Normal(z, 1.0).mask(there[:, now]).to_event(1))
                pyro.sample(f"x{t}", dist.Normal(z, 0.5).mask(there[:, now]).to_event(1), obs=x[:, now])

    @staticmethod
    def guide(x, there):
        with pyro.plate("data", len(x)):
            for t in range(STEPS):
                now = slice(t, t + 1)
                pyro.sample(f"z{t}", dist.Normal(x[:, now], 0.5).mask(there[:, now]).to_event(1))

    @staticmethod
    def data(number):
        there = torch.arange(STEPS) <= torch.arange(number)[:, None] % STEPS
        return {"x": torch.randn(number, STEPS).cumsum(1) * there, "there": there}

    @staticmethod
    def log_p(x, there):
        root = torch.ones(STEPS, STEPS).tril()
        covariance = root @ root.T + 0.25 * torch.eye(STEPS)
        normals = (dist.MultivariateNormal(torch.zeros(n), covariance[:n, :n]) for n in there.sum(1).tolist())
        return torch.stack([normal.log_prob(row[: normal.event_shape[0]]) for normal, row in zip(normals, x, strict=True)])


programs = pytest.mark.parametrize("programs", [Labels, Sequences])


@programs
@pytest.mark.parametrize("seed", [0, list(range(60))], ids=["one", "a datum"])
def test_a_tolerance(programs, seed):
    """Of 60 intervals at 95% fewer than 49 cover once in 100,000 seeds."""
    data = programs.data(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportanceSamplingWarning)
        found = pyrovae.log_likelihood((programs.model, programs.guide), data, tolerance=0.1, seed=seed, progress=False)
    assert found.effort.share_met >= 0.95
    assert "fitted" in found.effort.proposal
    low, high = found.interval()
    exact = programs.log_p(**data).numpy()
    assert ((low <= exact) & (exact <= high)).sum() >= 49


@programs
@starts
def test_annealed_chains(programs, start):
    """Z-tests of the mean of 200 weights of 6 data at level 1e-4 in all, with power 0.99 against a nat."""
    data = programs.data(6)
    found = annealed_importance_sampling(
        (programs.model, programs.guide), data, 200, 30, start=start, steps=5, progress=False
    )
    errors = (found.log_p - programs.log_p(**data).numpy()) / found.standard_error
    assert np.abs(errors).max() < 4.3
    assert found.standard_error.max() < 0.15


def test_a_mask_of_the_model_alone_leaves_a_flat_density():
    def model(x):
        with pyro.plate("data", len(x)):
            with pyro.poutine.mask(mask=x > 0.0):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x, u = torch.tensor([-1.0, 1.0]), torch.randn(5, 2, 1)
    likelihood, prior = dist.Normal(u[..., 0], 0.5).log_prob(x), dist.Normal(0.0, 1.0).log_prob(u[..., 0])
    torch.testing.assert_close(
        path_of(model, guide, x, 1, "guide").values(u)[1], likelihood + torch.where(x > 0.0, prior, 0.0)
    )
