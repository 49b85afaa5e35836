"""What every guide promises, asked of each class in the room, and what each adds."""

from functools import partial
from itertools import product

import pyro
import pytest
import scipy.stats
import torch
from checks import assert_mean, members, prior_for, refused, slow_but
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from spaces import latents, space_of
from torch.nn.functional import softplus

import pyrovae.guides
from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.sites import density_sites
from pyrovae.guides import DiagonalNormal, Guide
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO, IWAE
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")


def network(in_shape, out_shape):
    return MLP(in_shape, out_shape, hidden=(8,))


def log_q(guide, x, z, **above):
    """``log q(z | x)`` at given values of shape ``(B, latent_dim)``, given those of the sites above, which are else 1."""
    given = {name: torch.ones(length) for name, (length, _) in latents(guide, x).items()} | above | {"z": z}
    trace = poutine.trace(poutine.condition(guide, data=given)).get_trace(x)
    trace.compute_log_prob()
    return trace.nodes["z"]["log_prob"]


def sites(trace):
    """The values of a guide's latent sites by name."""
    return {site["name"]: site["value"] for site in density_sites(prune_subsample_sites(trace))}


def made(cls, event_shape, latent_dim):
    """A guide of a class, in the company that it keeps."""
    return VAE(event_shape, latent_dim, prior=prior_for(cls), guide=cls, encoder=network, decoder=network).guide


def space(cls):
    """The space that the guides of a class draw from."""
    return space_of(made(cls, (3,), 2), torch.zeros(1, 3))


@pytest.mark.parametrize("cls", members(pyrovae.guides, Guide))
class TestEvery:
    @pytest.mark.parametrize("event_shape", [(3,), (2, 3)])
    @pytest.mark.parametrize("latent_dim", [1, 4])
    def test_it_draws_a_vector_for_each_datum(self, cls, event_shape, latent_dim):
        latent_dim = max(latent_dim, space(cls).dim)
        guide = made(cls, event_shape, latent_dim)
        x = torch.randn(5, *event_shape)
        z = guide(x)
        assert z.shape == (5, latent_dim)
        assert z.dtype == torch.float64
        assert not torch.equal(guide(x), z)

    def test_its_density_integrates_to_one_and_is_that_of_its_draws(self, cls):
        guide, x = made(cls, (3,), space(cls).dim), torch.randn(1, 3)
        points, u, measure = space(cls).grid(20_001, reach=30.0)
        above = {name: torch.ones(length) for name, (length, _) in latents(guide, x).items() if name != "z"}
        with torch.no_grad():
            draws = poutine.condition(guide, data=above)(x.expand(4000, 3))
            q = log_q(guide, x.expand(len(points), 3), points).exp()
        cumulative = torch.cumulative_trapezoid(q * measure, u)
        assert cumulative[-1].item() == pytest.approx(1.0, abs=1e-6)
        uniform = cumulative[torch.searchsorted(u, space(cls).coordinate(draws)) - 1]
        assert scipy.stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-5

    def test_the_encoder_sees_each_datum_once(self, cls):
        vae = VAE((4,), 2, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        module = ELBO(7)(vae.model, vae.guide)
        x = vae.model(size=5)
        module.start(x)
        rows = []
        vae.guide.encoder.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape))
        module(x)
        assert rows == [(5, 4)]

    def test_it_depends_on_its_datum_alone(self, cls):
        guide = made(cls, (3,), 2)
        x, z = torch.randn(5, 3), space(cls).somewhere(5, 2)
        together = log_q(guide, x, z)
        alone = torch.cat([log_q(guide, x[[row]], z[[row]]) for row in range(5)])
        torch.testing.assert_close(together, alone)
        assert not torch.allclose(together, log_q(guide, x.flip(0), z))

    def test_a_gradient_reaches_every_parameter(self, cls):
        vae = VAE((4,), 2, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        ELBO(2)(vae.model, vae.guide)(vae.model(size=5)).backward()
        assert all(parameter.grad.norm() > 0.0 for parameter in vae.guide.parameters())

    def test_a_state_dict_makes_the_same_guide(self, cls):
        build = partial(VAE, (3,), 2, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        vae, copy = build(), build()
        one, other = vae.guide, copy.guide
        x, z = torch.randn(5, 3), space(cls).somewhere(5, 2)
        assert not torch.equal(log_q(one, x, z), log_q(other, x, z))
        copy.load_state_dict(vae.state_dict())
        assert torch.equal(log_q(one, x, z), log_q(other, x, z))

    def test_particles_are_a_dimension_of_their_own(self, cls):
        vae = VAE((4,), 3, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        x = vae.model(size=5)
        with torch.no_grad():
            weights = log_weights(vae, x, num_samples=7)
            drawn = sites(weights.guide)
            one_by_one = [log_q(vae.guide, x, **{name: value[k] for name, value in drawn.items()}) for k in range(7)]
        assert drawn["z"].shape == (7, 5, 3)
        torch.testing.assert_close(weights.proposal_terms["z"], torch.stack(one_by_one))

    def test_it_works_in_single_precision(self, cls):
        torch.set_default_dtype(torch.float32)
        vae = VAE((4,), 3, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        x = vae.model(size=5)
        single = log_weights(vae, x, num_samples=7)
        vae.double()
        draws = {name: value.double() for name, value in sites(single.guide).items()}
        double = poutine.trace(poutine.condition(vae.guide, data={name: value[0] for name, value in draws.items()}))
        trace = double.get_trace(x.double())
        trace.compute_log_prob()
        expected = sum(trace.nodes[name]["log_prob"] for name in draws)
        assert single.log_proposal.dtype == torch.float32
        torch.testing.assert_close(single.log_proposal[0].double(), expected, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize(
        ("size", "dtype"),
        slow_but(
            lambda size, dtype: (size == 3000.0) == (dtype == torch.float32),
            product([30.0, 3000.0], [torch.float32, torch.float64]),
        ),
    )
    def test_gradients_are_finite_where_the_encoder_is_far_out(self, cls, size, dtype):
        torch.set_default_dtype(dtype)
        vae = VAE((4,), 3, prior=prior_for(cls), guide=cls, encoder=network, decoder=network, likelihood=Normal)
        for _ in range(5):
            far = size * torch.randn(vae.guide.encoder.out_shape)
            vae.guide.encoder.start_output_at(far)
            loss = ELBO(2, analytic_kl=False)(vae.model, vae.guide)(torch.randn(5, 4))
            gradients = torch.autograd.grad(loss, [*vae.guide.parameters()])
            assert loss.isfinite()
            assert all(gradient.isfinite().all() for gradient in gradients)

    def test_its_draws_carry_the_gradient_of_their_density(self, cls):
        """In mean, along a random direction of the encoder's output; the exact derivative is found on a grid."""
        if cls.draw is not Guide.draw:
            pytest.skip("it draws from more than one distribution")
        guide = made(cls, (3,), space(cls).dim)
        output, direction = torch.randn(2, *guide.param_shape)
        step = torch.zeros((), requires_grad=True)
        points, u, measure = space(cls).grid(15_001, reach=40.0)
        moved = (output + step * direction).expand(len(points), *guide.param_shape)
        density = guide.proposal(moved).log_prob(points).exp() * measure
        (exact,) = torch.autograd.grad(torch.trapezoid(density * points.sin().sum(-1), u), step)
        steps = torch.zeros(20_000, requires_grad=True)
        moved = output + steps[(..., *[None] * output.dim())] * direction
        (slopes,) = torch.autograd.grad(guide.proposal(moved)().sin().sum(), steps)
        assert_mean(slopes, exact, detects=0.1)

    @pytest.mark.parametrize("estimator", ["stl", "dreg"])
    def test_its_density_can_be_stopped(self, cls, estimator):
        vae = VAE((4,), 2, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        loss = IWAE(3, estimator=estimator)(vae.model, vae.guide)(vae.model(size=5))
        gradients = torch.autograd.grad(loss, [*vae.guide.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)

    @pytest.mark.slow  # as test_parts has it for every guide, of other shapes
    def test_a_recorded_objective_is_the_same(self, cls):
        vae = VAE((4,), 3, prior=prior_for(cls), guide=cls, encoder=network, decoder=network)
        x = vae.model(size=5)
        objective = IWAE(2)(vae.model, vae.guide)
        objective.start(x)
        losses, gradients = [], []
        for run in (objective, torch.export.export(objective, (x,), strict=False).module()):
            pyro.set_rng_seed(1)
            losses.append(run(x))
            names, parameters = zip(*run.named_parameters(), strict=True)
            gradients.append(dict(zip(names, torch.autograd.grad(losses[-1], parameters), strict=True)))
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*gradients)

    def test_data_of_another_shape_are_refused(self, cls):
        with refused("MLP", (5, 2), "(*batch, 3)"):
            made(cls, (3,), 2)(torch.zeros(5, 2))


class TestDiagonalNormal:
    def test_its_density(self):
        guide = DiagonalNormal((3,), 2, network)
        x, z = torch.randn(5, 3), torch.randn(5, 2)
        loc, raw_scale = guide.encoder(x).detach().unbind(-2)
        expected = scipy.stats.norm(loc.numpy(), softplus(raw_scale).numpy() + 1e-6).logpdf(z.numpy()).sum(1)
        torch.testing.assert_close(log_q(guide, x, z).detach(), torch.from_numpy(expected))

    def test_its_scale_has_a_lower_bound(self):
        guide = DiagonalNormal((3,), 2, network)
        with torch.no_grad():
            guide.encoder.start_output_at(torch.tensor([[0.0, 0.0], [-1000.0, -1000.0]]))
        z = guide(torch.randn(5, 3))
        x = torch.randn(5, 3)
        assert log_q(guide, x, z).isfinite().all()

    def test_its_encoder_gives_two_numbers_for_each_dimension(self):
        assert DiagonalNormal((3,), 4, network).encoder.out_shape == (2, 4)
