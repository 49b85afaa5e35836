"""Normal proposals by natural gradients, against posteriors in closed form."""

import math

import pytest
import torch
from annealed import LINE
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pyrovae.evaluation.fitting.natural_gradient import fit_normals
from pyrovae.evaluation.fitting.normals import Normals

pytestmark = pytest.mark.usefixtures("float64")


def with_gradient(log_density):
    """What the fit is given."""

    def evaluate(u):
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value = log_density(u)
            return value.detach(), torch.autograd.grad(value.sum(), u)[0]

    return evaluate


@pytest.mark.parametrize("dimensions", [1, 3, 30])
def test_a_normal_posterior_is_found(dimensions):
    torch.manual_seed(1)
    root = torch.randn(4, dimensions, dimensions) / math.sqrt(dimensions)
    target = MultivariateNormal(torch.randn(4, dimensions), precision_matrix=root @ root.mT + torch.eye(dimensions))
    start = Normals(torch.zeros(4, dimensions), 0.3 * torch.eye(dimensions).expand(4, -1, -1))
    found = fit_normals(with_gradient(lambda u: target.log_prob(u) - 5.0), start)
    assert found.converged.all()
    proposal = MultivariateNormal(found.normals.loc, scale_tril=found.normals.scale_tril)
    assert (kl_divergence(proposal, target) < 0.01).all()
    entropy = 0.5 * dimensions * (1.0 + math.log(2.0 * math.pi))
    torch.testing.assert_close(found.elbo + entropy, torch.full((4,), -5.0), atol=1e-2, rtol=0.0)


def test_it_is_the_best_normal_distribution_of_a_skewed_posterior():
    """The optimum of the ELBO by quadrature: at u with exp(u) Gamma-distributed, E f' = 0 and E f'' = -1 / variance."""
    start = Normals(torch.full((1, 1), 2.0), torch.ones(1, 1, 1))
    found = fit_normals(with_gradient(lambda u: (3.0 * u - u.exp())[..., 0]), start)
    loc, scale = found.normals.loc.item(), found.normals.scale_tril.item()
    density = Normal(loc, scale).log_prob(LINE).exp() * (LINE[1] - LINE[0])
    assert (density * (3.0 - LINE.exp())).sum().abs() < 0.1
    assert (density * LINE.exp()).sum() == pytest.approx(scale**-2, rel=0.1)


def test_places_where_the_density_fails_are_walls():
    """A density that is NaN below zero: the fit stays above it, and is finite."""
    gradient = with_gradient(lambda u: torch.where(u > 0.0, 2.0 * u.clamp(min=1e-9).log() - u, torch.nan)[..., 0])
    found = fit_normals(gradient, Normals(torch.full((1, 1), 1.0), torch.full((1, 1, 1), 2.0)))
    assert found.normals.loc.item() > 0.0
    assert found.elbo.isfinite().all()


def test_a_density_that_is_never_a_number_does_not_converge():
    found = fit_normals(with_gradient(lambda u: torch.nan * u[..., 0]), Normals(torch.zeros(1, 2), torch.eye(2)[None]))
    assert not found.converged.any()
    assert found.elbo.isneginf().all()


def test_a_step_that_lowers_the_bound_is_taken_back():
    """A narrow ridge that a full step leaps over: the ELBO of the fit is above that of the start."""
    gradient = with_gradient(lambda u: Normal(u[..., 0] ** 2, 0.1).log_prob(torch.tensor(4.0)))
    start = Normals(torch.full((1, 1), 1.0), torch.full((1, 1, 1), 0.2))
    begin = Normal(1.0, 0.2).log_prob(LINE).exp() * (LINE[1] - LINE[0]) * Normal(LINE**2, 0.1).log_prob(torch.tensor(4.0))
    assert fit_normals(gradient, start).elbo.item() > begin.sum().item() + math.log(0.2) + 100.0
