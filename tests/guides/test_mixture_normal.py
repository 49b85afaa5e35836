"""The proposal of several modes, and the gradient that its draws carry."""

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from checks import assert_mean, refused
from torch.nn.functional import softplus

from pyrovae.distributions.diagonal_normal_mixture import DiagonalNormalMixture
from pyrovae.guides import MixtureNormal
from pyrovae.networks import MLP

pytestmark = pytest.mark.usefixtures("float64")


def mixture(logits, loc, scale):
    return DiagonalNormalMixture(dist.Categorical(logits=logits), dist.Normal(loc, scale).to_event(1))


@pytest.mark.parametrize("components", [1, 4])
def test_its_density(components):
    guide = MixtureNormal((3,), 2, MLP, components=components)
    params, z = torch.randn(5, components, 5), torch.randn(5, 2)
    loc, scale = params[..., 1:3].numpy(), softplus(params[..., 3:]).numpy() + 1e-6
    terms = scipy.stats.norm(loc, scale).logpdf(z[:, None].numpy()).sum(-1)
    expected = scipy.special.logsumexp(terms + scipy.special.log_softmax(params[..., 0].numpy(), -1), -1)
    np.testing.assert_allclose(guide.proposal(params).log_prob(z).numpy(), expected)


def test_no_component_is_refused():
    with refused("components", 0, 1):
        MixtureNormal((3,), 2, MLP, components=0)


@pytest.mark.parametrize("dim", [1, 4])
def test_the_jacobian_is_that_of_the_distribution_functions(dim):
    distribution = mixture(torch.randn(3), torch.randn(3, dim), 0.3 + torch.rand(3, dim))
    z = torch.randn(dim)
    found = distribution._distribution_functions(z)[1]
    expected = torch.autograd.functional.jacobian(lambda z: distribution._distribution_functions(z)[0], z)
    torch.testing.assert_close(found, expected)


def test_draws_are_uniform_where_the_distribution_functions_take_them():
    distribution = mixture(torch.randn(3), torch.randn(3, 2), 0.3 + torch.rand(3, 2))
    uniform = distribution._distribution_functions(distribution.expand((5000,)).rsample())[0]
    for column in uniform.T:
        assert scipy.stats.kstest(column.numpy(), "uniform").pvalue > 1e-5
    assert scipy.stats.spearmanr(*uniform.T.numpy()).pvalue > 1e-5


def test_components_are_drawn_with_their_probabilities():
    logits = torch.tensor([0.0, -1.0, -200.0, 1.0])
    loc = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    z = mixture(logits, loc, torch.ones(4, 1)).sample((10_000,))
    counts = np.bincount((z / 10.0).round().long().flatten().numpy(), minlength=4)
    expected = scipy.special.softmax(logits.numpy()) * 10_000
    assert z.shape == (10_000, 1)
    assert counts[2] == 0
    assert scipy.stats.chisquare(counts[[0, 1, 3]], expected[[0, 1, 3]]).pvalue > 1e-5


@pytest.mark.parametrize("which", ["logits", "loc", "scale"])
def test_the_mean_gradient_of_draws_is_that_of_the_integral(which):
    """Of a function that couples two dimensions, against a grid."""
    params = {"logits": torch.randn(3), "loc": torch.randn(3, 2), "scale": 0.5 + torch.rand(3, 2)}
    direction = torch.randn(params[which].shape)

    def moved(step):
        value = params[which] + step[(..., *[None] * direction.dim())] * direction
        return mixture(
            **{name: value if name == which else old.expand(*step.shape, *old.shape) for name, old in params.items()}
        )

    def function(z):
        return (z[..., 0] * z[..., 1]).sin() + z[..., 1].tanh()

    step = torch.zeros((), requires_grad=True)
    axis = torch.linspace(-10.0, 10.0, 801)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    integral = (moved(step).log_prob(grid).exp() * function(grid)).sum() * (axis[1] - axis[0]) ** 2
    (exact,) = torch.autograd.grad(integral, step)
    steps = torch.zeros(100_000, requires_grad=True)
    (slopes,) = torch.autograd.grad(function(moved(steps).rsample()).sum(), steps)
    assert_mean(slopes, exact, detects=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_components_that_are_far_apart_or_narrow_keep_their_gradients(dtype):
    """There a draw moves as one of its own component does."""
    loc = torch.tensor([[-1e3, 1e3], [1e3, -1e3]], dtype=dtype, requires_grad=True)
    scale = torch.tensor([[1e-3, 1.0], [10.0, 1e-3]], dtype=dtype, requires_grad=True)
    z = mixture(torch.zeros(2, dtype=dtype), loc, scale).expand((50,)).rsample()
    of_loc, of_scale = torch.autograd.grad(z.sum(), [loc, scale])
    chosen = (z[:, :1].detach() > 0.0).long()[:, 0]
    counts = torch.bincount(chosen, minlength=2).to(dtype)[:, None].expand(2, 2)
    noise = (z.detach() - loc.detach()[chosen]) / scale.detach()[chosen]
    expected = torch.zeros(2, 2, dtype=dtype).index_add(0, chosen, noise)
    torch.testing.assert_close(of_loc, counts, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_scale, expected, rtol=1e-3, atol=0.2)
