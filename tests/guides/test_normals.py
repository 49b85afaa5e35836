"""The Gaussian proposals with a covariance."""

import numpy as np
import pytest
import scipy.stats
import torch
from checks import refused
from torch.nn.functional import softplus

from pyrovae.guides import FullRankNormal, LowRankNormal
from pyrovae.networks import MLP

pytestmark = pytest.mark.usefixtures("float64")


def bounded(raw):
    return 100.0 * torch.tanh(raw / 100.0)


def gaussian(z, loc, covariance):
    return [scipy.stats.multivariate_normal(*row).logpdf(at) for at, *row in zip(z, loc, covariance, strict=True)]


class TestFullRankNormal:
    @pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
    def test_its_density(self, size):
        guide = FullRankNormal((3,), 3, MLP)
        params, z = size * torch.randn(5, 9), torch.randn(5, 3)
        s, r = softplus(params[:, [3, 5, 8]]) + 1e-6, bounded(params[:, [4, 6, 7]])
        one, zero = torch.ones(5), torch.zeros(5)
        rows = [torch.stack(row, -1) for row in ([one, zero, zero], [r[:, 0], one, zero], [r[:, 1], r[:, 2], one])]
        factor = s[..., None] * torch.stack(rows, -2)
        difference = torch.linalg.inv(factor) @ (z - params[:, :3])[..., None]
        expected = scipy.stats.norm.logpdf(difference[..., 0].numpy()).sum(1) - s.log().sum(1).numpy()
        np.testing.assert_allclose(guide.proposal(params).log_prob(z).numpy(), expected, rtol=1e-8)
        torch.testing.assert_close(guide.proposal(params).covariance_matrix, factor @ factor.mT)

    def test_its_density_by_its_covariance(self):
        proposal = FullRankNormal((3,), 2, MLP).proposal(torch.randn(5, 5))
        z = proposal.sample()
        expected = gaussian(z.numpy(), proposal.mean.numpy(), proposal.covariance_matrix.numpy())
        np.testing.assert_allclose(proposal.log_prob(z).numpy(), expected, rtol=1e-8)


class TestLowRankNormal:
    @pytest.mark.parametrize("rank", [1, 2, 5])
    def test_its_density(self, rank):
        guide = LowRankNormal((3,), 4, MLP, rank=rank)
        params, z = torch.randn(5, 2 + rank, 4), torch.randn(5, 4)
        scale = softplus(params[:, 1]) + 1e-6
        factor = scale[..., None] * bounded(params[:, 2:]).mT
        covariance = factor @ factor.mT + torch.diag_embed(scale**2)
        expected = gaussian(z.numpy(), params[:, 0].numpy(), covariance.numpy())
        np.testing.assert_allclose(guide.proposal(params).log_prob(z).numpy(), expected, rtol=1e-8)

    def test_a_rank_of_zero_is_refused(self):
        with refused("rank", 0, 1, "DiagonalNormal"):
            LowRankNormal((3,), 2, MLP, rank=0)
