"""Distributions of several runs as one: every family has the densities of its parts, and is taken apart where it can be."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence, transforms

from pyrovae.distributions.stacked import Stacked
from pyrovae.engine.lifting import lift

pytestmark = pytest.mark.usefixtures("float64")
B, D = 4, 3


def scale_tril():
    return torch.linalg.cholesky(torch.eye(D) + 0.3)


families = {
    "normal": lambda: dist.Normal(torch.randn(B), torch.rand(B) + 0.1),
    "of scalars": lambda: dist.Normal(torch.randn(()), 1.0).expand([B]),
    "independent": lambda: dist.Normal(torch.randn(B, D), 1.0).to_event(1),
    "masked": lambda: dist.Normal(torch.randn(B, D), 1.0).mask(torch.arange(D) < 2).to_event(1),
    "student": lambda: dist.StudentT(3.0, torch.randn(B), 1.0),
    "log-normal": lambda: dist.LogNormal(torch.randn(B, D), 0.5).to_event(1),
    "gamma": lambda: dist.Gamma(torch.rand(B) + 1.0, 2.0),
    "beta": lambda: dist.Beta(torch.rand(B) + 1.0, 2.0),
    "dirichlet": lambda: dist.Dirichlet(torch.rand(B, D) + 1.0),
    "bernoulli": lambda: dist.Bernoulli(logits=torch.randn(B, D)).to_event(1),
    "bernoulli of probabilities": lambda: dist.Bernoulli(torch.rand(B)),
    "categorical": lambda: dist.Categorical(torch.rand(B, D)),
    "one-hot": lambda: dist.OneHotCategorical(logits=torch.randn(B, D)),
    "multinomial": lambda: dist.Multinomial(5, torch.rand(B, D)),
    "binomial": lambda: dist.Binomial(7, logits=torch.randn(B)),
    "negative binomial": lambda: dist.NegativeBinomial(3.0, logits=torch.randn(B)),
    "zero-inflated": lambda: dist.ZeroInflatedNegativeBinomial(
        torch.rand(B) + 1.0, logits=torch.randn(B), gate_logits=torch.randn(B)
    ),
    "zero-inflated by a gate": lambda: dist.ZeroInflatedPoisson(torch.rand(B) + 1.0, gate=torch.rand(B)),
    "poisson": lambda: dist.Poisson(torch.rand(B) + 0.5),
    "full covariance": lambda: dist.MultivariateNormal(torch.randn(B, D), scale_tril=scale_tril()),
    "by covariance": lambda: dist.MultivariateNormal(torch.randn(B, D), torch.eye(D) + 0.3),
    "low rank": lambda: dist.LowRankMultivariateNormal(torch.randn(B, D), torch.randn(D, 1), torch.rand(D) + 0.1),
    "mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(logits=torch.randn(B, 2)), dist.Normal(torch.randn(B, 2, D), 1.0).to_event(1)
    ),
    "shifted": lambda: dist.TransformedDistribution(
        dist.Normal(torch.zeros(B, D), 1.0).to_event(1), [transforms.AffineTransform(torch.randn(D), 2.0)]
    ),
    "sigmoid": lambda: dist.TransformedDistribution(dist.Normal(torch.randn(B), 1.0), [transforms.SigmoidTransform()]),
    "point": lambda: dist.Delta(torch.randn(B, D), log_density=torch.randn(B), event_dim=1),
    "relaxed": lambda: dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.randn(B, D)),
    "correlations": lambda: dist.LKJCholesky(D, 1.0 + torch.rand(B)),
}
every_family = pytest.mark.parametrize("make", families.values(), ids=families)


class Opaque(dist.TorchDistribution):
    """A distribution that does not keep what it was built from."""

    def __init__(self, loc, doubled=None):
        self._normal = dist.Normal(2.0 * loc, 1.0)
        super().__init__(self._normal.batch_shape, validate_args=False)

    def sample(self, sample_shape=()):
        return self._normal.sample(sample_shape)

    def log_prob(self, value):
        return self._normal.log_prob(value)


@every_family
@pytest.mark.parametrize("rank", [1, 2])
def test_it_has_the_densities_of_its_parts(make, rank):
    parts = [make() for _ in range(3)]
    values = [part.sample() for part in parts]
    lifted = lift(parts, rank)
    assert not isinstance(lifted, Stacked)
    assert lifted.batch_shape == (3, *[1] * (rank - 1), B)
    assert lifted.event_shape == parts[0].event_shape
    pad = (slice(None), *[None] * (rank - 1))
    expected = torch.stack([part.log_prob(value) for part, value in zip(parts, values, strict=True)])[pad]
    torch.testing.assert_close(lifted.log_prob(torch.stack(values)[pad]), expected, rtol=1e-10, atol=1e-10)


@every_family
def test_one_after_another_they_are_the_same(make):
    parts = [make() for _ in range(3)]
    values = torch.stack([part.sample() for part in parts])[:, None]
    stacked = Stacked(parts, 2)
    torch.testing.assert_close(stacked.log_prob(values), lift(parts, 2).log_prob(values), rtol=1e-10, atol=1e-10)
    assert stacked.sample((5,)).shape == (5, *stacked.batch_shape, *stacked.event_shape)


def test_what_does_not_say_what_it_was_built_from_is_kept_as_it_is():
    parts = [Opaque(torch.randn(B)) for _ in range(3)]
    lifted = lift(parts, 1)
    assert isinstance(lifted, Stacked)
    value = torch.randn(3, B)
    expected = [part.log_prob(row) for part, row in zip(parts, value, strict=True)]
    torch.testing.assert_close(lifted.log_prob(value), torch.stack(expected))


class Squared(dist.Normal):
    """A user's own distribution, which keeps another number under the name of its argument."""

    def __init__(self, loc, scale, validate_args=None):
        super().__init__(loc, scale**2, validate_args)


def test_a_class_of_a_users_own_is_not_built_anew():
    parts = [Squared(torch.randn(B), 0.5 + torch.rand(B)) for _ in range(3)]
    lifted, value = lift(parts, 1), torch.randn(3, B)
    expected = torch.stack([part.log_prob(row) for part, row in zip(parts, value, strict=True)])
    torch.testing.assert_close(lifted.log_prob(value), expected)
    torch.testing.assert_close(lifted.variance, torch.stack([part.variance for part in parts]))


def test_runs_of_several_families_are_kept_apart():
    parts = [dist.Normal(torch.zeros(B), 1.0), dist.Laplace(torch.zeros(B), 1.0)]
    value = torch.randn(2, B)
    expected = torch.stack([part.log_prob(row) for part, row in zip(parts, value, strict=True)])
    torch.testing.assert_close(lift(parts, 1).log_prob(value), expected)


def test_a_temperature_of_each_run_is_that_of_the_run():
    parts = [dist.RelaxedOneHotCategorical(torch.tensor(t), logits=torch.zeros(B, D)) for t in (0.5, 2.0)]
    value = torch.rand(2, B, D).softmax(-1)
    expected = torch.stack([part.log_prob(row) for part, row in zip(parts, value, strict=True)])
    torch.testing.assert_close(lift(parts, 1).log_prob(value), expected)


def test_divergences_are_those_of_the_parts():
    pairs = [[dist.Normal(torch.randn(B), 1.0 + torch.rand(B)) for _ in range(3)] for _ in range(2)]
    expected = torch.stack([kl_divergence(q, p) for q, p in zip(*pairs, strict=True)])
    torch.testing.assert_close(kl_divergence(*(lift(parts, 1) for parts in pairs)), expected)
    torch.testing.assert_close(kl_divergence(*(Stacked(parts, 1) for parts in pairs)), expected)
