"""What every prior promises, asked of each class in the room, and what each adds."""

import pyro
import pytest
import scipy.stats
import torch
from checks import members
from pyro import poutine

import pyrovae.priors
from pyrovae.errors import InputError
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO
from pyrovae.priors import Prior, StandardNormal
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")


def trace_of(prior, *sizes):
    """The prior's trace within plates of these sizes, the innermost last."""
    program = prior
    for dim, size in enumerate(reversed(sizes), start=1):
        program = pyro.plate(f"plate_{dim}", size, dim=-dim)(program)
    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    return trace


def density(prior, z):
    """``p(z)`` at given values of shape ``(n, latent_dim)``."""
    with pyro.plate("values", len(z), dim=-1), poutine.trace() as tracer, poutine.condition(data={"z": z}):
        prior()
    tracer.trace.compute_log_prob()
    return tracer.trace.nodes["z"]["log_prob"].detach().exp()


@pytest.mark.parametrize("cls", members(pyrovae.priors, Prior))
class TestEvery:
    @pytest.mark.parametrize("latent_dim", [1, 3])
    @pytest.mark.parametrize("sizes", [(), (4,), (5, 4), (2, 5, 4)])
    def test_it_draws_a_vector_for_each_place_of_the_plates(self, cls, latent_dim, sizes):
        trace = trace_of(cls(latent_dim), *sizes)
        z = trace.nodes["_RETURN"]["value"]
        assert z.shape == (*sizes, latent_dim)
        assert z.dtype == torch.float64
        assert len(z.flatten().unique()) == z.numel()
        assert trace.stochastic_nodes
        for name in trace.stochastic_nodes:
            assert trace.nodes[name]["log_prob"].shape == sizes

    def test_its_density_integrates_to_one_and_is_that_of_its_draws(self, cls):
        prior = cls(1)
        with pyro.plate("draws", 4000, dim=-1), torch.no_grad():
            draws = prior()[:, 0]
        grid = torch.linspace(-30.0, 30.0, 60_001)
        p = density(prior, grid[:, None])
        cumulative = torch.cumulative_trapezoid(p, grid)
        assert cumulative[-1].item() == pytest.approx(1.0, abs=1e-6)
        uniform = cumulative[((draws + 30.0) / 60.0 * 60_000).long()]
        assert scipy.stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-5

    def test_it_goes_into_a_vae(self, cls):
        vae = VAE((4,), 2, prior=cls, encoder=MLP, decoder=MLP)
        x = vae.model(size=5)
        loss = ELBO(2)(vae.model, vae.guide)
        loss(x).backward()
        assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
        assert all(parameter.grad.norm() > 0.0 for parameter in vae.model.prior.parameters())

    def test_a_state_dict_makes_the_same_prior(self, cls):
        one, other = cls(2), cls(2)
        other.load_state_dict(one.state_dict())
        z = torch.randn(5, 2)
        assert torch.equal(density(one, z), density(other, z))

    def test_it_moves_to_another_type(self, cls):
        with pyro.plate("draws", 4, dim=-1):
            assert cls(2).to(torch.float32)().dtype == torch.float32

    @pytest.mark.parametrize("latent_dim", [0, -1])
    def test_a_latent_without_dimensions_is_refused(self, cls, latent_dim):
        with pytest.raises(InputError, match=f"latent_dim is {latent_dim}; expected at least 1"):
            cls(latent_dim)


class TestStandardNormal:
    def test_its_density(self):
        z = 2 * torch.randn(20, 3)
        expected = scipy.stats.multivariate_normal(mean=torch.zeros(3).numpy()).pdf(z.numpy())
        torch.testing.assert_close(density(StandardNormal(3), z), torch.from_numpy(expected))

    def test_its_draws(self):
        with pyro.plate("draws", 2000, dim=-1):
            z = StandardNormal(2)()
        assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-5
        assert abs(scipy.stats.pearsonr(*z.T.numpy()).statistic) < 4.42 / 2000**0.5

    def test_it_has_nothing_to_learn_and_nothing_to_save(self):
        assert not [*StandardNormal(2).parameters()]
        assert not StandardNormal(2).state_dict()
