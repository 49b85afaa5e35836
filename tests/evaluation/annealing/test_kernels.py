"""Transition kernels against exact draws of a posterior."""

import pytest
import scipy.stats
import torch
from annealed import pair, path_of
from checks import assert_mean
from programs import GaussianGuide

from pyrovae.evaluation.annealing.kernels.hamiltonian import Hamiltonian
from pyrovae.evaluation.annealing.kernels.kernel import Tuning

pytestmark = pytest.mark.usefixtures("float64")


class TestTransition:
    @pytest.mark.parametrize("step_size", [0.3, 1.2])
    def test_it_leaves_the_density_as_it_is(self, step_size):
        """Exact draws of the posterior stay that, whatever part of the proposals is accepted: tests at 1e-5."""
        model, _ = pair()
        x = model.data(1)
        path = path_of(model, GaussianGuide(model), x, 4000, "guide")
        state = path.begin(path.sample_initial())
        kernel, tuning = Hamiltonian(5), Tuning(torch.tensor([step_size]), torch.tensor([[0.3, 1.0]]))
        for _ in range(10):
            state, accepted, _ = kernel(path, state, torch.ones(1), tuning)
        share = accepted.double().mean().item()
        assert 0.1 < share < 0.9 if step_size > 1.0 else share > 0.9
        mean, covariance = model.posterior(x)
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (state.u[:, 0] - mean).T, upper=False)
        for row in white:
            assert scipy.stats.kstest(row.numpy(), "norm").pvalue > 1e-5
        assert scipy.stats.spearmanr(*white.numpy()).pvalue > 1e-5

    def test_chains_forget_where_they_began(self):
        model, _ = pair()
        x = model.data(1)
        path = path_of(model, GaussianGuide(model, shift=3.0), x, 4000, "guide")
        state = path.begin(path.sample_initial())
        for _ in range(60):
            state, _, _ = Hamiltonian(8)(path, state, torch.ones(1), Tuning(torch.tensor([0.4]), torch.ones(1, 2)))
        mean, _ = model.posterior(x)
        for column, expected in zip(state.u[:, 0].T, mean[0], strict=True):
            assert_mean(column, expected, detects=0.2)
