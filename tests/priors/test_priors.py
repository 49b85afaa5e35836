"""What every prior promises, asked of each class in the room, and what each adds."""

import math
from copy import deepcopy
from functools import partial

import pyro
import pytest
import scipy.stats
import torch
from checks import guide_for, members, refused
from pyro import poutine
from spaces import space_of
from torch import nn
from torch.nn.functional import softplus

import pyrovae.priors
from pyrovae.guides import Hierarchical as GuideOfLayers
from pyrovae.networks import MLP
from pyrovae.objectives import ELBO
from pyrovae.priors import (
    Autoregressive,
    Flow,
    Hierarchical,
    Laplace,
    LearnedNormal,
    Mixture,
    Prior,
    StandardNormal,
    StudentT,
    Vamp,
)
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")


def network(in_shape, out_shape):
    return MLP(in_shape, out_shape, hidden=(8,))


class Fixed(nn.Module):
    """An encoder whose location is the first number of its datum, and whose scale is small."""

    def forward(self, x):
        return torch.stack([x[..., :2], torch.zeros_like(x[..., :2])], -2)


def made(cls, latent_dim):
    """A prior of a class, in the company that it keeps."""
    return VAE((3,), latent_dim, prior=cls, guide=guide_for(cls), encoder=network, decoder=network).model.prior


def trace_of(prior, *sizes):
    """The prior's trace within plates of these sizes, the innermost last."""
    program = prior
    for dim, size in enumerate(reversed(sizes), start=1):
        program = pyro.plate(f"plate_{dim}", size, dim=-dim)(program)
    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    return trace


def below(prior):
    """The prior given one draw, always the same, of the sites above ``z``, if it has any."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        trace = poutine.trace(prior).get_trace()
    above = {name: trace.nodes[name]["value"].detach() for name in trace.stochastic_nodes if name != "z"}
    return poutine.condition(prior, data=above)


def density(prior, z):
    """``p(z)`` at given values of shape ``(n, latent_dim)``, given what is above them."""
    prior = below(prior)
    with pyro.plate("values", len(z), dim=-1), poutine.trace() as tracer, poutine.condition(data={"z": z}):
        prior()
    tracer.trace.compute_log_prob()
    return tracer.trace.nodes["z"]["log_prob"].detach().exp()


@pytest.mark.parametrize("cls", members(pyrovae.priors, Prior))
class TestEvery:
    @pytest.mark.parametrize("latent_dim", [1, 3])
    @pytest.mark.parametrize("sizes", [(), (4,), (5, 4), (2, 5, 4)])
    def test_it_draws_a_vector_for_each_place_of_the_plates(self, cls, latent_dim, sizes):
        latent_dim = max(latent_dim, space_of(made(cls, 2)).dim)
        trace = trace_of(made(cls, latent_dim), *sizes)
        z = trace.nodes["_RETURN"]["value"]
        assert z.shape == (*sizes, latent_dim)
        assert z.dtype == torch.float64
        assert len(z.flatten().unique()) == z.numel()
        assert trace.stochastic_nodes
        for name in trace.stochastic_nodes:
            assert trace.nodes[name]["log_prob"].shape == sizes

    def test_its_density_integrates_to_one_and_is_that_of_its_draws(self, cls):
        space = space_of(made(cls, 2))
        prior = made(cls, space.dim)
        given = below(prior)
        with pyro.plate("draws", 4000, dim=-1), torch.no_grad():
            draws = given()
        points, u, measure = space.grid(60_001, reach=1e4)
        cumulative = torch.cumulative_trapezoid(density(prior, points) * measure, u)
        assert cumulative[-1].item() == pytest.approx(1.0, abs=1e-6)
        uniform = cumulative[torch.searchsorted(u, space.coordinate(draws)) - 1]
        assert scipy.stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-5

    def test_it_goes_into_a_vae(self, cls):
        vae = VAE((4,), 2, prior=cls, guide=guide_for(cls), encoder=network, decoder=network)
        x = vae.model(size=5)
        loss = ELBO(2)(vae.model, vae.guide)
        loss(x).backward()
        assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
        assert all(parameter.grad.norm() > 0.0 for parameter in vae.model.prior.parameters())

    def test_a_state_dict_makes_the_same_prior(self, cls):
        one, other = made(cls, 2), made(cls, 2)
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        other.load_state_dict(one.state_dict())
        z = space_of(one).somewhere(5, 2)
        if cls is not Vamp:  # whose density is the guide's too, which its VAE saves
            assert torch.equal(density(one, z), density(other, z))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))

    def test_its_log_density_has_finite_gradients_far_out(self, cls):
        prior = made(cls, 3)
        space = space_of(prior)
        z = torch.cat([space.somewhere(4, 3), space.far(4, 3)]).requires_grad_()
        with pyro.plate("values", len(z), dim=-1), poutine.trace() as tracer, poutine.condition(data={"z": z}):
            prior()
        tracer.trace.compute_log_prob()
        log_p = tracer.trace.nodes["z"]["log_prob"]
        gradients = torch.autograd.grad((log_p + 0.0 * z.sum()).sum(), [z, *prior.parameters()])
        assert log_p.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)

    def test_it_moves_to_another_type(self, cls):
        torch.set_default_dtype(torch.float32)
        prior = made(cls, 2)
        torch.set_default_dtype(torch.float64)
        with pyro.plate("draws", 4, dim=-1):
            z = prior()
        assert z.dtype == torch.float32
        assert density(prior, z).dtype == torch.float32

    @pytest.mark.parametrize("latent_dim", [0, -1])
    def test_a_latent_without_dimensions_is_refused(self, cls, latent_dim):
        with refused("latent_dim", latent_dim, 1):
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


class TestLearnedNormal:
    def test_its_density(self):
        prior = LearnedNormal(2)
        assert torch.equal(density(prior, torch.ones(1, 2)), density(StandardNormal(2), torch.ones(1, 2)))
        with torch.no_grad():
            prior.loc.copy_(torch.tensor([0.5, -2.0]))
            prior.log_scale.copy_(torch.tensor([0.3, -0.7]))
        z = torch.randn(20, 2)
        expected = scipy.stats.norm(prior.loc.detach().numpy(), prior.log_scale.exp().detach().numpy()).pdf(z.numpy())
        torch.testing.assert_close(density(prior, z), torch.from_numpy(expected.prod(1)))


class TestMixture:
    def test_its_density(self):
        prior = Mixture(2, components=3)
        with torch.no_grad():
            prior.logits.copy_(torch.randn(3))
            prior.log_scale.copy_(torch.randn(3, 2))
        z = torch.randn(20, 2)
        each = scipy.stats.norm(prior.loc.detach().numpy(), prior.log_scale.exp().detach().numpy()).pdf(z.numpy()[:, None])
        expected = (prior.logits.softmax(0).detach().numpy() * each.prod(-1)).sum(-1)
        torch.testing.assert_close(density(prior, z), torch.from_numpy(expected))

    def test_its_components_differ_at_first(self):
        assert len(Mixture(2, components=7).loc.unique(dim=0)) == 7


class TestLaplace:
    def test_its_density(self):
        z = 2 * torch.randn(20, 3)
        expected = scipy.stats.laplace(scale=0.5**0.5).pdf(z.numpy()).prod(1)
        torch.testing.assert_close(density(Laplace(3), z), torch.from_numpy(expected))
        assert scipy.stats.laplace(scale=0.5**0.5).var() == pytest.approx(1.0)


class TestStudentT:
    @pytest.mark.parametrize("df", [0.5, 3.0])
    def test_its_density(self, df):
        z = 5 * torch.randn(20, 3)
        expected = scipy.stats.t(df).pdf(z.numpy()).prod(1)
        torch.testing.assert_close(density(StudentT(3, df=df), z), torch.from_numpy(expected))

    @pytest.mark.parametrize("df", [0.0, -1.0, math.inf, math.nan])
    def test_degrees_of_freedom_that_are_none_are_refused(self, df):
        with refused("df", df):
            StudentT(2, df=df)


class TestFlow:
    @pytest.mark.parametrize("kind", ["maf", "nsf"])
    def test_its_density_is_that_of_the_change_of_variables(self, kind):
        prior = Flow(3, kind=kind, transforms=2, hidden=(8,))
        z = torch.randn(5, 3)
        transform = prior.flow().transform
        epsilon = transform(z).detach()
        log_volume = [torch.autograd.functional.jacobian(transform, row).slogdet().logabsdet for row in z]
        expected = scipy.stats.norm.pdf(epsilon.numpy()).prod(1) * torch.stack(log_volume).exp().numpy()
        torch.testing.assert_close(density(prior, z), torch.from_numpy(expected))

    def test_an_unknown_kind_is_refused(self):
        with refused("kind", "'glow'", "'maf'", "'nsf'"):
            Flow(2, kind="glow")

    def test_a_flow_without_a_step_is_refused(self):
        with refused("transforms", 0, 1, "StandardNormal"):
            Flow(2, transforms=0)


class TestAutoregressive:
    def test_its_density_is_the_product_of_its_conditionals(self):
        prior = Autoregressive(3, components=4, hidden=(8,))
        z = torch.randn(20, 3)
        expected = torch.ones(20)
        for place in range(3):
            known = torch.cat([z[:, :place], torch.randn(20, 3 - place)], 1)  # what comes after does not matter
            logits, loc, raw = prior._params(known)[:, place].detach().unbind(1)
            each = scipy.stats.norm(loc.numpy(), softplus(raw).numpy() + 1e-6).pdf(z[:, [place]].numpy())
            expected *= (logits.softmax(-1) * torch.from_numpy(each)).sum(-1)
        torch.testing.assert_close(density(prior, z), expected)

    def test_its_draws_follow_one_another(self):
        """The second number, seen through its distribution function given the first, is uniform: a test at 1e-5."""
        prior = Autoregressive(2, components=2, hidden=(8,))
        with torch.no_grad():
            for value in prior.parameters():
                value.mul_(4)
            with pyro.plate("draws", 4000, dim=-1):
                z = prior()
            logits, loc, raw = prior._params(z)[:, 1].unbind(1)
        below_it = scipy.stats.norm(loc.numpy(), softplus(raw).numpy() + 1e-6).cdf(z[:, [1]].numpy())
        uniform = (logits.softmax(-1).numpy() * below_it).sum(-1)
        assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-5
        assert abs(scipy.stats.spearmanr(*z.T.numpy()).statistic) > 0.1


class TestHierarchical:
    def test_its_density_is_the_product_of_its_layers(self):
        prior = Hierarchical(2, upper=(3, 4), network=network)
        trace = trace_of(prior, 5)
        z, z2, z3 = (trace.nodes[name]["value"].detach().numpy() for name in ("z", "z2", "z3"))
        assert [z.shape, z2.shape, z3.shape] == [(5, 2), (5, 3), (5, 4)]
        expected = scipy.stats.norm.logpdf(z3).sum(1)
        for layer, lower, upper in ((1, z2, z3), (0, z, z2)):
            loc, raw_scale = prior.networks[layer](torch.from_numpy(upper)).detach().unbind(-2)
            expected += scipy.stats.norm(loc.numpy(), softplus(raw_scale).numpy() + 1e-6).logpdf(lower).sum(1)
        torch.testing.assert_close(trace.log_prob_sum().detach(), torch.tensor(expected.sum()))

    @pytest.mark.parametrize("upper", [(), (3, 0)])
    @pytest.mark.parametrize("build", [partial(Hierarchical, 2), partial(GuideOfLayers, (3,), 2, network)])
    def test_layers_that_are_none_are_refused(self, build, upper):
        with refused("upper", upper, 1):
            build(upper=upper)

    def test_a_guide_of_other_layers_is_refused(self):
        prior, guide = partial(Hierarchical, upper=(3,)), partial(GuideOfLayers, upper=(3, 2))
        vae = VAE((3,), 2, prior=prior, guide=guide, encoder=network, decoder=network)
        with refused("'z3'", 'infer={"is_auxiliary": True}'):
            ELBO()(vae.model, vae.guide)(torch.zeros(2, 3))


class TestVamp:
    def test_its_density_is_the_mean_of_the_guides(self):
        vae = VAE((3,), 2, prior=partial(Vamp, components=4), encoder=network, decoder=network)
        z = torch.randn(20, 2)
        loc, raw_scale = vae.guide.encoder(vae.model.prior.pseudo_inputs).detach().unbind(-2)
        each = scipy.stats.norm(loc.numpy(), softplus(raw_scale).numpy() + 1e-6).pdf(z.numpy()[:, None])
        torch.testing.assert_close(density(vae.model.prior, z), torch.from_numpy(each.prod(-1).mean(-1)))

    def test_its_draws_are_of_all_its_components_alike(self):
        vae = VAE((3,), 2, prior=partial(Vamp, components=4), encoder=lambda *_: Fixed(), decoder=network)
        vae.model.prior.start_at(torch.tensor([-30.0, -10.0, 10.0, 30.0])[:, None].expand(4, 3))
        with pyro.plate("draws", 4000, dim=-1):
            z = vae.model.prior()
        counts = [((z - place).abs() < 8).all(-1).sum().item() for place in (-30.0, -10.0, 10.0, 30.0)]
        assert sum(counts) == 4000
        assert scipy.stats.chisquare(counts).pvalue > 1e-5

    def test_its_pseudo_inputs_differ_at_first(self):
        assert len(made(Vamp, 2).pseudo_inputs.unique(dim=0)) == 50

    def test_it_uses_the_guides_parameters_and_does_not_own_them(self):
        vae = VAE((3,), 2, prior=Vamp, encoder=network, decoder=network)
        assert [name for name, _ in vae.model.prior.named_parameters()] == ["pseudo_inputs"]
        before = density(vae.model.prior, torch.ones(1, 2))
        with torch.no_grad():
            vae.guide.encoder.start_output_at(torch.ones(2, 2))
        assert density(vae.model.prior, torch.ones(1, 2)) != before

    def test_a_copy_of_the_vae_has_a_prior_of_its_own_guide(self):
        vae = VAE((3,), 2, prior=Vamp, encoder=network, decoder=network)
        other = deepcopy(vae)
        before = density(vae.model.prior, torch.ones(1, 2))
        with torch.no_grad():
            other.guide.encoder.start_output_at(torch.ones(2, 2))
        assert torch.equal(density(vae.model.prior, torch.ones(1, 2)), before)
        assert density(other.model.prior, torch.ones(1, 2)) != before

    def test_it_starts_at_data(self):
        prior = made(partial(Vamp, components=4), 2)
        x = torch.rand(4, 3)
        prior.start_at(x)
        assert torch.equal(prior.pseudo_inputs, x)
        with refused("x", (5, 3), (4, 3)):
            prior.start_at(torch.rand(5, 3))
        with refused("context", (4, 2)):
            prior.start_at(x, torch.rand(4, 2))

    def test_without_a_guide_it_is_refused(self):
        with refused("VAE(..., prior=Vamp)"):
            Vamp(2)()


@pytest.mark.parametrize("cls", [Autoregressive, Mixture, Vamp])
def test_a_mixture_of_nothing_is_refused(cls):
    with refused("components", 0, 1):
        cls(2, components=0)
