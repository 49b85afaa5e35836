"""Programs and checks for annealed chains."""

import math
from types import MappingProxyType

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, slow_but
from programs import GaussianGuide, LinearGaussian
from torch import nn

from pyrovae.engine.pair import Pair
from pyrovae.evaluation import annealed_importance_sampling
from pyrovae.evaluation.annealing.path.path import Path
from pyrovae.runtime.batches import as_batch
from pyrovae.runtime.seeds import seeded

STARTS = ("prior", "guide")
SCHEDULES = ("sigmoid", "linear", "adaptive")
WAYS = (("guide", "sigmoid"), ("prior", "linear"), ("guide", "adaptive"))
"""Pairs of the two in which each schedule and each start is met."""
starts = pytest.mark.parametrize("start", STARTS)
one_start = pytest.mark.parametrize("start", slow_but(lambda start: start == "guide", STARTS))
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
LINE = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)


def pair(structure=LinearGaussian, **sizes):
    model = structure(**sizes)
    return model, GaussianGuide(model, shift=0.5, widen=1.5)


def path_of(model, guide, x, chains, start="prior"):
    """The path of all data at once."""
    pair, batch = Pair(model, guide), as_batch(x)
    with seeded(0):
        pair.meet(batch)
        return Path(pair, batch, chains, start)


class Scales(nn.Module):
    """A positive latent in an inner plate of two: a Gamma prior, normal data, and a log-normal guide."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 2, dim=-2):
            s = pyro.sample("s", dist.Gamma(2.0, 1.0))
            pyro.sample("x", dist.Normal(0.0, s), obs=x.T)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("inner", 2, dim=-2):
            pyro.sample("s", dist.LogNormal(x.T.abs().log1p(), 0.8))

    def log_p(self, x):
        s = torch.linspace(-12.0, 5.0, 20_001).exp()
        joint = dist.Gamma(2.0, 1.0).log_prob(s) + dist.Normal(0.0, s).log_prob(x[..., None]) + s.log()
        return (joint.logsumexp(-1) + math.log(17.0 / 20_000)).sum(-1)


def at_a_point(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(torch.zeros(len(x), 2), event_dim=1))


def with_another_site(kind, x):
    """A guide with a site that is no latent of the model, and another density therefore."""
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.5).to_event(1))
        if kind == "auxiliary":
            pyro.sample("a", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
        elif kind == "factor":
            pyro.factor("a", torch.ones(len(x)), has_rsample=False)
        elif kind == "observed":
            pyro.sample("a", dist.Normal(0.0, 1.0), obs=x[:, 0], infer={"is_auxiliary": True})


def scalar(prior, proposal, likelihood=lambda z: dist.Normal(z, 1.0)):
    """One latent ``z`` a datum, of whatever shape, from a prior that knows no data, and its guide."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", proposal)

    return model, guide


class Stateless(dist.TorchDistribution):
    """A distribution that keeps its support for itself."""

    arg_constraints = MappingProxyType({})

    def __init__(self, base):
        self.base_dist = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def sample(self, sample_shape=()):
        return self.base_dist.sample(sample_shape)

    def log_prob(self, value):
        return self.base_dist.log_prob(value)

    def expand(self, batch_shape, _instance=None):
        return Stateless(self.base_dist.expand(batch_shape))


def by_quadrature(log_prior, log_likelihood, x, points=LINE):
    """Log p(x) of scalar latents at points that lie alike, shape ``(N,)``, densities being of points and of points and x."""
    joint = log_prior(points)[:, None] + log_likelihood(points[:, None], x)
    return joint.logsumexp(0) + (points[1] - points[0]).log()


def require_unbiased(programs, x, log_p, start, temperatures=10, chains=8, times=250, detects=0.25, **settings):
    """Mean weights of many chains of each datum are p(x), at few temperatures, where single ones are off."""
    many = x.repeat(times, *[1] * (x.dim() - 1))
    found = annealed_importance_sampling(programs, many, chains, temperatures, start=start, steps=3, **settings)
    weights = torch.from_numpy(np.exp(found.log_weights)) / log_p.exp().repeat(times)
    assert_mean(weights.mean(0), 1.0, detects=detects)
    assert found.log_weights.std() > 0.01
    assert found.acceptance.mean() > 0.3
    return found


class TwoModes:
    """The sign of the first latent is not known from x, and the guide knows one of its modes alone."""

    @staticmethod
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0] ** 2, 0.3), obs=x)

    @staticmethod
    def guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.cat([x[:, None].clamp(min=0.01).sqrt(), torch.zeros(len(x), 2)], -1)
            pyro.sample("z", dist.Normal(loc, torch.tensor([0.1, 1.0, 1.0])).to_event(1))

    @staticmethod
    def log_p(x):
        joint = dist.Normal(0.0, 1.0).log_prob(LINE) + dist.Normal(LINE**2, 0.3).log_prob(x[:, None])
        return joint.logsumexp(1) + math.log(LINE[1] - LINE[0])
