"""Discrete latents beside continuous ones: densities are summed over them, and what follows is right."""

import math
import warnings
from itertools import product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import path_of, starts
from checks import refused
from torch import nn
from torch.nn.functional import one_hot

import pyrovae
from pyrovae.evaluation import ImportanceSamplingWarning, annealed_importance_sampling, bidirectional
from pyrovae.evaluation.annealing.unconstrained.outcomes import MOST_OUTCOMES

pytestmark = pytest.mark.usefixtures("float64")
SHARES = torch.tensor([0.2, 0.3, 0.5])
CENTRES = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [2.0, 1.0]])
NOISE = 0.5
SWITCHED_ON = torch.tensor([0.2, 0.5, 0.9])


class Clusters(nn.Module):
    """A Gaussian mixture as prior of two latents, and data that are these with noise.

    Args:
        form: of the cluster: ``index`` or ``one-hot``.
    """

    def __init__(self, form="index"):
        super().__init__()
        self.form = form

    def draw(self, probs):
        family = dist.Categorical if self.form == "index" else dist.OneHotCategorical
        cluster = pyro.sample("cluster", family(probs))
        return one_hot(cluster, 3) if self.form == "index" else cluster

    def model(self, x):
        with pyro.plate("data", len(x)):
            cluster = self.draw(SHARES)
            z = pyro.sample("z", dist.Normal(cluster.to(CENTRES) @ CENTRES, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            cluster = self.draw(torch.full((len(x), 3), 1.0) / 3.0)
            pyro.sample("z", dist.Normal(0.5 * x + 0.1 * cluster[..., :2], 0.7).to_event(1))

    def components(self):
        return dist.Normal(CENTRES, (1.0 + NOISE**2) ** 0.5).to_event(1)

    def log_p(self, x):
        return (SHARES.log() + self.components().log_prob(x[:, None])).logsumexp(-1)

    def data(self, number):
        return self.components().sample((number,))[torch.arange(number), torch.arange(number) % 3]


class Switches(nn.Module):
    """Three switches a datum, of one event or in a plate of their own, that say which of three latents count."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def switches(self, probs):
        if self.form == "event":
            return pyro.sample("on", dist.Bernoulli(probs).to_event(1))
        with pyro.plate("switches", 3, dim=-2):
            return pyro.sample("on", dist.Bernoulli(probs.unsqueeze(-1) if probs.dim() == 1 else probs.mT)).movedim(-2, -1)

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            on = self.switches(SWITCHED_ON)
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((on * z).sum(-1), 0.3), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            on = self.switches(x.sigmoid()[:, None].expand(-1, 3))
            pyro.sample("z", dist.Normal(on * x[:, None], 1.0).to_event(1))

    def densities(self, x, z):
        """By a loop over the switches: log q(z | x), log p(x, z) and log p(z)."""
        ends = []
        for on in product([0.0, 1.0], repeat=3):
            on = torch.tensor(on)
            guide = dist.Bernoulli(x.sigmoid()[:, None]).log_prob(on).sum(-1)
            prior = dist.Bernoulli(SWITCHED_ON).log_prob(on).sum() + dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
            likelihood = dist.Normal((on * z).sum(-1), 0.3).log_prob(x)
            ends.append([guide + dist.Normal(on * x[:, None], 1.0).log_prob(z).sum(-1), prior + likelihood, prior])
        return [torch.stack(terms).logsumexp(0) for terms in zip(*ends, strict=True)]


def pair(structure, form):
    programs = structure(form)
    return programs.model, programs.guide


@pytest.mark.parametrize("form", ["event", "plate"])
def test_the_densities_are_sums_over_every_outcome(form):
    x = torch.randn(4)
    path = path_of(*pair(Switches, form), x, 5, "guide")
    u = torch.randn(5, 4, 3)
    for found, expected in zip(path.values(u), Switches(form).densities(x, u), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", ["index", "one-hot"])
@starts
def test_annealed_chains(start, form):
    """Z-tests of the mean of 200 weights of 6 data at level 1e-4 in all, with power 0.99 against a nat."""
    programs = Clusters(form)
    x = programs.data(6)
    found = annealed_importance_sampling(pair(Clusters, form), x, 200, 30, start=start, steps=5, progress=False)
    errors = (found.log_p - programs.log_p(x).numpy()) / found.standard_error
    assert np.abs(errors).max() < 4.3
    assert found.standard_error.max() < 0.15


def test_what_is_compiled_is_the_same():
    x = Clusters().data(4)
    path = path_of(*pair(Clusters, "index"), x, 3, "guide")
    u = torch.randn(3, 4, 2)
    eager = path.at(u, u)
    path.compile()
    assert path.compiled
    for found, expected in zip(path.at(u, u), eager, strict=True):
        torch.testing.assert_close(found, expected)


def test_bounds_from_both_sides():
    """The brackets are at the level of one in a million each."""
    found = bidirectional(pair(Clusters, "index"), Clusters().data(20), 16, 30, steps=5, progress=False)
    low, high = found.interval(1.0 - 1e-6)
    exact = Clusters().log_p(torch.from_numpy(found.data)).numpy()
    assert ((low <= exact) & (exact <= high)).all()
    assert found.gap[0] < 0.5


FORMS = [(Clusters, "index"), (Clusters, "one-hot"), (Switches, "event"), (Switches, "plate")]


@pytest.mark.parametrize(("structure", "form"), FORMS)
def test_a_tolerance_is_reached_by_proposals_fitted_to_the_sum(structure, form):
    """Of 60 intervals at 95% fewer than 49 cover once in 100,000 seeds."""
    programs = structure(form)
    x = programs.data(60) if structure is Clusters else torch.randn(60)
    exact = programs.log_p(x) if structure is Clusters else exact_of_switches(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportanceSamplingWarning)
        found = pyrovae.log_likelihood(pair(structure, form), x, tolerance=0.05, progress=False)
    assert found.effort.share_met >= 0.95
    low, high = found.interval()
    assert ((low <= exact.numpy()) & (exact.numpy() <= high)).sum() >= 49


def exact_of_switches(x):
    ends = []
    for on in product([0, 1], repeat=3):
        prior = dist.Bernoulli(SWITCHED_ON).log_prob(torch.tensor(on, dtype=torch.float64)).sum()
        ends.append(prior + dist.Normal(0.0, math.hypot(0.3, sum(on) ** 0.5)).log_prob(x))
    return torch.stack(ends).logsumexp(0)


def test_a_cluster_that_the_guide_never_draws_is_found():
    """The weights of its draws alone have light tails, and look like a good proposal's."""
    programs = Clusters()

    def blind(x):
        with pyro.plate("data", len(x)):
            cluster = pyro.sample("cluster", dist.Categorical(logits=torch.tensor([0.0, -30.0, -30.0]).expand(len(x), 3)))
            pyro.sample("z", dist.Normal(CENTRES[cluster], 1.0).to_event(1))

    x = programs.data(9)
    found = pyrovae.log_likelihood((programs.model, blind), x, tolerance=0.1, progress=False)
    assert found.effort.met.all()
    np.testing.assert_allclose(found.log_p, programs.log_p(x), atol=0.15)


class TestRefusals:
    def run(self, family, extra=()):
        def model(x):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", family)
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z + y.reshape(*z.shape, -1).sum(-1), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("y", family)
                pyro.sample("z", dist.Normal(x, 1.0))

        return annealed_importance_sampling((model, guide), torch.randn(3), 2, 4, progress=False)

    def test_outcomes_without_end(self):
        with refused("'y'", "Poisson", "log_likelihood"):
            self.run(dist.Poisson(2.0))

    def test_more_outcomes_than_are_summed(self):
        with refused("'y'", "256", MOST_OUTCOMES, "log_likelihood"):
            self.run(dist.Bernoulli(torch.full((8,), 0.5)).to_event(1))
        self.run(dist.Bernoulli(torch.full((7,), 0.5)).to_event(1))
