"""Normal distributions and their mixtures, one a datum, against torch's."""

import pytest
import torch
from checks import assert_mean
from torch.distributions import MultivariateNormal

from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures
from pyrovae.evaluation.fitting.normals import Normals

pytestmark = pytest.mark.usefixtures("float64")


def normals(data=3, dimensions=4):
    """Some, with correlations."""
    scale_tril = torch.randn(data, dimensions, dimensions).tril(-1) + torch.diag_embed(0.5 + torch.rand(data, dimensions))
    return Normals(torch.randn(data, dimensions), scale_tril)


def test_densities_are_those_of_torch():
    found, u = normals(), torch.randn(5, 3, 4)
    torch.testing.assert_close(found.log_density(u), MultivariateNormal(found.loc, scale_tril=found.scale_tril).log_prob(u))


def test_whitening_takes_colouring_back():
    found, v = normals(), torch.randn(5, 3, 4)
    torch.testing.assert_close(found.whitened(found.coloured(v)), v)


def test_a_gradient_is_whitened_by_the_chain_rule():
    found, v = normals(), torch.randn(5, 3, 4, requires_grad=True)
    u = found.coloured(v)
    (expected,) = torch.autograd.grad(u.sin().sum(), v)
    torch.testing.assert_close(found.whitened_gradient(u.detach().cos()), expected)


def test_moments_of_draws_and_a_point_without_spread():
    draws = torch.randn(50, 2, 3)
    draws[:, 1, 2] = 7.0
    found = Normals.from_draws(draws)
    torch.testing.assert_close(found.loc, draws.mean(0))
    torch.testing.assert_close(found.scale_tril[0].diagonal(), draws[:, 0].std(0))
    assert found.scale_tril[1, 2, 2] == 0.1


def test_each_datum_is_widened_by_its_own_factor():
    found = normals().widened(torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found.scale_tril, normals_again().scale_tril * torch.tensor([1.0, 2.0, 3.0])[:, None, None])


def normals_again():
    """The same as the first of a test."""
    torch.manual_seed(0)
    return normals()


def test_a_mixture_draws_from_its_parts_by_their_shares():
    """Two far parts, of which the second has a share of 0.3 of the first datum and none of the second."""
    near = Normals(torch.zeros(2, 1), torch.ones(2, 1, 1))
    shares = torch.tensor([[0.7, 1.0], [0.3, 0.0]]).log()
    mixture = NormalMixtures([near, near._replace(loc=near.loc + 100.0)], shares)
    draws = mixture.sample(4000)[..., 0] > 50.0
    assert_mean(draws[:, 0].double(), 0.3, detects=0.06)
    assert not draws[:, 1].any()
    u = torch.tensor([[[100.0], [0.5]]])
    expected = torch.stack([near.log_density(u), near.log_density(u - 100.0)]) + shares[:, None]
    torch.testing.assert_close(mixture.log_density(u), expected.logsumexp(0))
