"""Chains of programs that fail in a part of the space."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import Stateless, by_quadrature, pair, require_unbiased
from checks import refused

from pyrovae.evaluation import annealed_importance_sampling, bidirectional

pytestmark = pytest.mark.usefixtures("float64")


def cornered(fails, prior=None):
    r"""A pair that ``fails`` on the half line :math:`z > 1`, of which its prior draws nothing, and has N(z, 1) elsewhere."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", Below() if prior is None else prior)
            pyro.sample("x", dist.Normal(fails(z), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(-1.0, 0.1))

    return model, guide


class Below(Stateless):
    """A standard normal below 1, that does not say where it is, so that chains go beyond."""

    support = dist.constraints.real

    def __init__(self, batch_shape=()):
        super().__init__(dist.Normal(torch.zeros(batch_shape), 1.0))

    def sample(self, sample_shape=()):
        below = dist.Normal(0.0, 1.0).cdf(torch.tensor(1.0))
        return dist.Normal(0.0, 1.0).icdf(below * torch.rand(*sample_shape, *self.batch_shape))

    def log_prob(self, value):
        return self.base_dist.log_prob(value) - dist.Normal(0.0, 1.0).cdf(torch.tensor(1.0)).log()

    def expand(self, batch_shape, _instance=None):
        return Below(batch_shape)


def without_a_factor(z):
    """Has a Cholesky factor where z < 1."""
    return z + 0.0 * torch.linalg.cholesky((1.0 - z)[..., None, None])[..., 0, 0].detach()


def validated(z):
    return z + 0.0 * dist.HalfNormal((1.0 - z).detach(), validate_args=True).mean.detach()


def divided(z):
    if bool((z >= 1.0).any()):
        raise ZeroDivisionError("z is too large")
    return z


def no_number(z):
    return torch.where(z < 1.0, z, math.nan)


class TestFailedMoves:
    """Chains whose programs fail beyond 1 are those of the density that ends there."""

    x = torch.tensor([-0.5, 1.0, 0.3], dtype=torch.float64)

    def log_p(self):
        line = torch.linspace(-12.0, 1.0, 4001)
        return by_quadrature(Below().log_prob, lambda z, x: dist.Normal(z, 1.0).log_prob(x), self.x, line)

    @pytest.mark.parametrize("fails", [without_a_factor, no_number])
    def test_they_are_rejected_and_counted(self, fails):
        found = require_unbiased(cornered(fails), self.x, self.log_p(), "prior", times=100, detects=0.25)
        assert 0 < found.failed_moves < 0.7 * 9 * 8 * 300
        assert np.isfinite(found.log_weights).all()
        assert f"  {'moves that failed':<22}{found.failed_moves:>12,} of {9 * 8 * 300:,}" in str(found)

    def test_all_ways_to_fail_are_alike(self, unfused):
        """Errors and numbers that are none end the same moves, compiled or not."""
        runs = {
            fails: annealed_importance_sampling(cornered(fails), self.x, 3, 8, steps=1)
            for fails in (without_a_factor, validated, divided, no_number)
        }
        compiled = [
            annealed_importance_sampling(cornered(fails), self.x, 3, 8, steps=1, compile=True)
            for fails in (without_a_factor, no_number)
        ]
        for found in (*runs.values(), *compiled):
            np.testing.assert_allclose(found.log_weights, runs[no_number].log_weights, rtol=1e-6)
            assert found.failed_moves == runs[no_number].failed_moves > 0

    def test_both_ways(self):
        found = bidirectional(cornered(without_a_factor), self.x.repeat(20), 6, 20, steps=3)
        assert found.failed_moves > 0
        assert "moves that failed" in str(found)
        line = torch.linspace(-12.0, 1.0, 4001)
        exact = by_quadrature(
            Below().log_prob, lambda z, x: dist.Normal(z, 1.0).log_prob(x), torch.from_numpy(found.data), line
        ).numpy()
        low, high = found.interval(1.0 - 1e-6)
        assert ((low <= exact) & (exact <= high)).all()

    def test_where_nothing_fails_nothing_is_said(self):
        model, guide = pair()
        found = annealed_importance_sampling((model, guide), model.data(3), 3, 4, steps=1)
        assert found.failed_moves == 0
        assert "failed" not in str(found)

    @pytest.mark.parametrize(
        ("fails", "words"),
        [
            (without_a_factor, ["prior", "linalg.cholesky", 'start="guide"']),
            (divided, ["prior", "ZeroDivisionError", 'start="guide"']),
            (no_number, ["'x'", "model", "NaN"]),
        ],
    )
    def test_where_chains_begin_errors_are_the_programs_own(self, fails, words):
        """Of forty draws of a prior that has a sixth of its mass beyond 1; the first few must be below."""
        model, guide = cornered(fails, dist.Normal(0.0, 1.0))
        with refused(*words):
            annealed_importance_sampling((model, guide), self.x, 40, 4, seed=3)
