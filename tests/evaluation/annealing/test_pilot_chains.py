"""The tuning and the schedule that pilot chains find."""

import pytest
import torch
from annealed import pair, path_of, schedules

from pyrovae.evaluation.annealing.kernels.hamiltonian import Hamiltonian
from pyrovae.evaluation.annealing.pilot_chains import run_pilot_chains
from pyrovae.evaluation.annealing.schedule import sigmoid_schedule

pytestmark = pytest.mark.usefixtures("float64")


class TestTuning:
    def test_pilot_chains_find_step_sizes(self):
        model, guide = pair(data_dim=13, latent_dim=10)
        path = path_of(model, guide, model.data(5), 50)
        made = run_pilot_chains(path, 25, "sigmoid", Hamiltonian(10))
        state = path.begin(path.sample_initial())
        shares = []
        for t in range(1, 25):
            state, accepted, _ = made.kernel(path, state, made.betas[t], made.tuning(t))
            shares.append(accepted.double().mean())
        assert 0.5 < torch.stack(shares).mean() < 0.9

    def test_pilot_chains_find_how_wide_the_posterior_is(self):
        """In each dimension, of latents whose scales differ by a factor of ten."""
        model, guide = pair(data_dim=3, latent_dim=2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[8.0, 0.0], [0.0, 0.1], [0.0, 0.1]]))
        x = model.data(3)
        made = run_pilot_chains(path_of(model, guide, x, 200), 250, "sigmoid", Hamiltonian(10))
        _, covariance = model.posterior(x)
        found = made.tuning(250).scale / covariance.diagonal().sqrt()
        assert ((found > 0.6) & (found < 1.6)).all()


class TestSchedules:
    @schedules
    def test_they_go_from_0_to_1(self, schedule):
        model, guide = pair()
        betas = run_pilot_chains(path_of(model, guide, model.data(3), 8), 40, schedule, Hamiltonian(3)).betas
        assert betas.shape == (41, 3)
        assert torch.equal(betas[[0, -1]], torch.tensor([0.0, 1.0])[:, None].expand(2, 3).double())
        assert (betas.diff(dim=0) > 0.0).all()

    def test_the_sigmoid_is_dense_at_both_ends(self):
        betas = sigmoid_schedule(100, torch.device("cpu"))
        assert betas.diff().argmax() in (49, 50)
        torch.testing.assert_close(betas, 1.0 - betas.flip(0))

    def test_the_adaptive_one_costs_the_same_at_each_temperature(self):
        """The conditional effective sample size is that of the variance of the log ratio, which is known here."""
        model, guide = pair()
        x = model.data(2)
        path = path_of(model, guide, x, 500)
        made = run_pilot_chains(path, 60, "adaptive", Hamiltonian(10))
        state = path.begin(path.sample_initial())
        costs = []
        for t in range(1, 61):
            ratio = (made.betas[t] - made.betas[t - 1]) * (state.log_f1 - state.log_f0)
            costs.append(ratio.std(0))
            state, _, _ = made.kernel(path, state, made.betas[t], made.tuning(t))
        costs = torch.stack(costs)[5:]
        assert (costs.max(0).values / costs.median(0).values < 1.6).all()
        assert (costs.min(0).values / costs.median(0).values > 0.5).all()
