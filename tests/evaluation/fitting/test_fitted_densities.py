"""The densities of fitted proposals: weights of mixtures, and the path from one to the posterior."""

import pytest
import torch
from annealed import Scales, pair, path_of
from checks import assert_mean

from pyrovae.evaluation.fitting.fitted_mixture import mixture_log_weights
from pyrovae.evaluation.fitting.fitted_path import FittedPath
from pyrovae.evaluation.fitting.modes import fit_on
from pyrovae.evaluation.fitting.normal_mixtures import NormalMixtures
from pyrovae.evaluation.fitting.normals import Normals

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    "others", [(), ("prior",), ("guide",), ("guide", "prior")], ids=lambda parts: "+".join(parts) or "alone"
)
def test_weights_have_the_mean_p_of_x(others):
    """A z-test at level 1e-5, with power 0.99 against 5%, of a latent with a constraint."""
    programs, x = Scales(), torch.tensor([[0.5, 2.0]]).expand(3000, 2)
    path = path_of(programs.model, programs.guide, x, 1, "guide" if "guide" in others else "prior")
    fit = fit_on(path, Normals.from_draws(path.sample("guide", 64)))
    fitted = NormalMixtures([fit.normals], torch.zeros(1, len(x)))
    log_weights = mixture_log_weights(path, fitted, others, 20).logsumexp(0) - torch.tensor(20.0).log()
    assert_mean((log_weights - programs.log_p(x[:1])).exp(), 1.0, detects=0.05)


def test_a_path_begins_at_the_proposal_and_has_the_gradients_of_its_densities():
    model, guide = pair()
    path = path_of(model, guide, model.data(3), 1)
    parts = [
        Normals(torch.randn(3, 2), 0.5 * torch.eye(2).expand(3, -1, -1)),
        Normals(torch.zeros(3, 2), torch.eye(2).expand(3, -1, -1)),
    ]
    fitted = NormalMixtures(parts, torch.full((2, 3), 0.5).log())
    found = FittedPath(path, fitted, 5)
    v = found.sample_initial().requires_grad_()
    state = found.begin(v)
    u = parts[0].coloured(v)
    torch.testing.assert_close(state.log_f0, (fitted.log_density(u) + parts[0].log_det).detach())
    log_f1 = path.values(u)[1]
    torch.testing.assert_close(state.log_f1, (log_f1 + parts[0].log_det).detach())
    for end, gradient in (("log_f0", state.gradient_0), ("log_f1", state.gradient_1)):
        for axis in range(2):
            step = torch.zeros(2).index_fill(0, torch.tensor(axis), 1e-5)
            up, down = (getattr(found.begin(v.detach() + sign * step), end) for sign in (1, -1))
            torch.testing.assert_close((up - down) / 2e-5, gradient[..., axis], atol=1e-5, rtol=1e-5)
