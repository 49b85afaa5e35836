"""The engine against closed forms, and its refusals."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, refused
from programs import (
    PLATES,
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    Mixture,
    MixtureGuide,
    Subsampled,
    WithDeterministic,
    WithLatentPlate,
    WithPixelPlate,
    drawing,
    gaussian_kl,
)
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoIAFNormal, AutoMultivariateNormal, AutoNormal

from pyrovae.engine.log_weights import log_weights, weigh
from pyrovae.engine.plates import Plates
from pyrovae.engine.validation import find_plates
from pyrovae.errors import InputError

pytestmark = pytest.mark.usefixtures("float64")


def chain(order):
    model = Chain(order)
    return model, ChainGuide(model, order)


def mixture():
    model = Mixture()
    return model, MixtureGuide(model)


def latent_plate():
    model = WithLatentPlate()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.0, 0.0]]))  # orthogonal: the posterior is diagonal
    return model, LatentPlateGuide(model)


def gaussian(structure):
    model = structure()
    return model, GaussianGuide(model)


def subsampled(size=None):
    pair = Subsampled(*gaussian(LinearGaussian), size)
    return pair.model, pair.guide


def two_plates(rows, outermost="rows"):
    """Everything in two plates, over rows (by that name) and columns."""

    def plates(x):
        both = pyro.plate(rows, len(x), dim=-1), pyro.plate("columns", x.shape[1], dim=-2)
        return both if outermost == "rows" else both[::-1]

    def model(x):
        outer, inner = plates(x)
        with outer, inner:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        outer, inner = plates(x)
        with outer, inner:
            pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))

    return model, guide


exact_pairs = {
    "plain": lambda: gaussian(LinearGaussian),
    "deterministic outside the plate": lambda: gaussian(WithDeterministic),
    "pixels in an inner plate": lambda: gaussian(WithPixelPlate),
    "latents in an inner plate": latent_plate,
    "two sites": lambda: chain("ab"),
    "two sites, drawn in other orders": lambda: (Chain("ab"), ChainGuide(Chain("ab"), "ba")),
    "discrete": mixture,
}
every_exact_pair = pytest.mark.parametrize("pair", exact_pairs.values(), ids=exact_pairs.keys())


def data_and_log_p(model, size):
    if isinstance(model, Mixture):
        x = torch.randn(size)
        return x, model.joint(x).logsumexp(-1)
    x = model.data(size)
    return x, model.log_p(x)


class TestValues:
    @every_exact_pair
    @pytest.mark.parametrize("particles", [1, 7])
    def test_the_exact_posterior_weighs_every_draw_alike(self, pair, particles):
        model, guide = pair()
        x, log_p = data_and_log_p(model, 5)
        weights = log_weights((model, guide), x, num_samples=particles)
        assert weights.total.shape == (particles, 5)
        torch.testing.assert_close(weights.total, log_p.expand(particles, 5), rtol=0, atol=1e-10)
        assert weights.scale == 1.0
        assert weights.rescaled == ()

    def test_terms_are_the_densities_of_their_sites(self):
        model = Chain()
        guide = ChainGuide(model, shift=0.3, widen=1.4)
        x = model.data(4)
        weights = log_weights((model, guide), x, num_samples=3)
        assert [*weights.latent_terms] == [*weights.proposal_terms] == ["a", "b"]
        assert [*weights.observed_terms] == ["x"]
        a, b = weights.guide.nodes["a"]["value"], weights.guide.nodes["b"]["value"]
        assert a.shape == b.shape == (3, 4)
        torch.testing.assert_close(weights.latent_terms["a"], dist.Normal(0.0, 1.0).log_prob(a))
        torch.testing.assert_close(weights.latent_terms["b"], dist.Normal(0.6 * a, 0.8).log_prob(b))
        mean = model.mean(torch.stack([a, b], -1))
        torch.testing.assert_close(weights.log_likelihood, dist.Normal(mean, model.noise).log_prob(x).sum(-1))
        loc, covariance = guide.moments(x)
        q = dist.MultivariateNormal(loc, covariance).log_prob(torch.stack([a, b], -1))
        torch.testing.assert_close(weights.log_proposal, q)
        torch.testing.assert_close(weights.total, weights.log_prior + weights.log_likelihood - weights.log_proposal)

    def test_a_perturbed_guide_falls_short_by_its_divergence(self):
        model = LinearGaussian()
        guide = GaussianGuide(model, shift=0.2, widen=1.3)
        x = model.data(1)
        weights = log_weights((model, guide), x, num_samples=100_000)
        gap = gaussian_kl(guide.moments(x), model.posterior(x))
        assert gap > 0.2
        assert_mean(weights.total, model.log_p(x) - gap, detects=0.025)
        assert_mean((weights.total - model.log_p(x)).exp(), 1.0, detects=0.02)

    @pytest.mark.parametrize("structure", [LinearGaussian, WithDeterministic, WithPixelPlate])
    def test_a_batch_of_two_is_two_batches_of_one(self, structure):
        model = structure()
        guide = GaussianGuide(model, shift=0.3, widen=1.5)
        x = model.data(2)
        both = log_weights((model, guide), x, num_samples=6)
        z = both.guide.nodes["z"]["value"]
        assert both.total.std(0).min() > 0.1
        for row in range(2):
            alone = drawing(guide, z=z[..., row : row + 1, :])
            plates = find_plates((model, guide), x[:1])
            weights = log_weights((model, alone), x[row : row + 1], num_samples=6, plates=plates)
            torch.testing.assert_close(weights.total[:, 0], both.total[:, row], rtol=0, atol=1e-12)

    def test_a_batch_of_two_inner_plates_is_two_batches_of_one(self):
        model, _ = latent_plate()
        guide = LatentPlateGuide(model, shift=0.3, widen=1.5)
        x = model.data(2)
        both = log_weights((model, guide), x, num_samples=6)
        z = both.guide.nodes["z"]["value"]
        assert z.shape == (6, 2, 2)
        for row in range(2):
            alone = drawing(guide, z=z[..., row : row + 1])
            weights = log_weights((model, alone), x[row : row + 1], num_samples=6, plates=Plates("data", 2))
            torch.testing.assert_close(weights.total[:, 0], both.total[:, row], rtol=0, atol=1e-12)

    def test_a_subsampled_plate_leaves_the_weights_of_its_data(self):
        model, guide = subsampled(4)
        x = model.__self__.generator.data(12)
        weights = log_weights((model, guide), x, num_samples=3)
        assert weights.total.shape == (3, 4)
        assert weights.scale == 3.0
        assert weights.rescaled == ()
        log_p = model.__self__.generator.log_p(x)
        distances = (weights.total[0][:, None] - log_p).abs()
        rows = distances.argmin(1)
        assert distances.min(1).values.max() < 1e-10
        assert len(rows.unique()) == 4
        torch.testing.assert_close(weights.total, log_p[rows].expand(3, 4), rtol=0, atol=1e-10)

    def test_a_guide_need_not_know_that_the_model_subsamples(self):
        model, _ = subsampled(4)
        guide = GaussianGuide(model.__self__.generator)
        x = model.__self__.generator.data(12)

        def part(x):
            with pyro.plate("data", 12, subsample=torch.arange(4), dim=-1):
                return model.__self__.generator.observe(model.__self__.generator.latent(), x)

        weights = log_weights((part, guide), x[:4], num_samples=2)
        log_p = model.__self__.generator.log_p(x[:4])
        assert weights.scale == 3.0
        torch.testing.assert_close(weights.total, log_p.expand(2, 4), rtol=0, atol=1e-10)

    def test_the_caller_may_say_which_plate_counts_the_data(self):
        model, guide = two_plates("rows")
        x = torch.randn(3, 2)
        log_p = dist.Normal(0.0, 2**0.5).log_prob(x)
        by_row = log_weights((model, guide), x, num_samples=2, plates=Plates("rows", 2))
        torch.testing.assert_close(by_row.total, log_p.sum(1).expand(2, 3))
        by_column = log_weights((model, guide), x, num_samples=2, plates=Plates("columns", 2))
        torch.testing.assert_close(by_column.total, log_p.sum(0).expand(2, 2))

    @pytest.mark.parametrize("outermost", ["rows", "columns"])
    def test_of_several_plates_around_everything_the_one_named_data_counts_the_data(self, outermost):
        model, guide = two_plates("data", outermost)
        x = torch.randn(3, 2)
        weights = log_weights((model, guide), x, num_samples=2)
        assert weights.plates == Plates("data", 2)
        torch.testing.assert_close(weights.total, dist.Normal(0.0, 2**0.5).log_prob(x).sum(1).expand(2, 3))

    def test_a_site_of_the_guide_alone_may_tell_the_data_plate(self):
        model, _ = two_plates("rows", "columns")

        def guide(x):
            with pyro.plate("rows", len(x), dim=-1):
                pyro.sample("noise", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
                with pyro.plate("columns", x.shape[1], dim=-2):
                    pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))

        assert find_plates((model, guide), torch.randn(3, 2)) == Plates("rows", 2)

    @pytest.mark.parametrize("program", ["model", "guide"])
    def test_a_deterministic_site_may_be_in_a_deeper_plate_than_any_density(self, program):
        model, guide = gaussian(LinearGaussian)

        def deeper(program):
            def run(x):
                with pyro.plate("summaries", 2, dim=-2):
                    pyro.deterministic("summary", x.new_zeros(2, 1))
                return program(x)

            return run

        pair = (deeper(model), guide) if program == "model" else (model, deeper(guide))
        x = model.data(3)
        weights = log_weights(pair, x, num_samples=4)
        torch.testing.assert_close(weights.total, model.log_p(x).expand(4, 3))

    def test_event_dimensions_are_summed(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2, 3]).to_event(2))
                pyro.sample("x", dist.Normal(z, 1.0).to_event(2), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(2))

        x = torch.randn(4, 2, 3)
        log_p = dist.Normal(0.0, 2**0.5).log_prob(x).sum((1, 2))
        torch.testing.assert_close(log_weights((model, guide), x, num_samples=2).total, log_p.expand(2, 4))

    def test_a_factor_counts_as_an_observed_term(self):
        model, guide = gaussian(LinearGaussian)

        def tilted(x):
            with pyro.plate("data", len(x), dim=-1):
                z = model.latent()
                pyro.factor("tilt", z.sum(-1))
                return model.observe(z, x)

        x = model.data(3)
        weights = log_weights((tilted, guide), x, num_samples=4)
        z = weights.guide.nodes["z"]["value"]
        torch.testing.assert_close(weights.observed_terms["tilt"], z.sum(-1))
        torch.testing.assert_close(weights.total, model.log_p(x) + z.sum(-1))

    def test_a_masked_datum_contributes_nothing(self):
        model, guide = gaussian(LinearGaussian)
        keep = torch.tensor([True, False, True])
        x = model.data(3)
        weights = log_weights((poutine.mask(model, mask=keep), poutine.mask(guide, mask=keep)), x, num_samples=2)
        torch.testing.assert_close(weights.total, torch.where(keep, model.log_p(x), 0.0).expand(2, 3))

    def test_a_partly_observed_site_integrates_the_rest_out(self):
        seen = torch.tensor([True, False, True])

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.where(seen, x / 2, 0.0), torch.where(seen, 0.5**0.5, 1.0)))

        x = torch.randn(3)
        expected = torch.where(seen, dist.Normal(0.0, 2**0.5).log_prob(x), 0.0)
        torch.testing.assert_close(log_weights((model, guide), x, num_samples=2).total, expected.expand(2, 3))

    def test_a_guide_may_propose_what_a_partly_observed_site_lacks(self):
        seen = torch.tensor([True, False, True])

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x, obs_mask=seen)

        def guide(x):
            with pyro.plate("data", len(x)):
                loc, scale = torch.where(seen, x / 2, 0.0), torch.where(seen, 0.5**0.5, 1.0)
                z = pyro.sample("z", dist.Normal(loc, scale))
                with poutine.mask(mask=~seen):
                    pyro.sample("x_unobserved", dist.Normal(z, 1.0))

        x = torch.randn(3)
        weights = log_weights((model, guide), x, num_samples=2)
        expected = torch.where(seen, dist.Normal(0.0, 2**0.5).log_prob(x), 0.0)
        assert "x_unobserved" in weights.latent_terms
        torch.testing.assert_close(weights.total, expected.expand(2, 3))

    def test_a_scale_of_its_own_is_contained_and_named(self):
        model, guide = gaussian(LinearGaussian)

        def tempered(x):
            with pyro.plate("data", len(x), dim=-1):
                with poutine.scale(scale=0.25):
                    z = model.latent()
                return model.observe(z, x)

        x = model.data(3)
        weights = log_weights((tempered, guide), x, num_samples=2)
        assert weights.rescaled == ("z",)
        z = weights.guide.nodes["z"]["value"]
        torch.testing.assert_close(weights.log_prior, 0.25 * dist.Normal(0.0, 1.0).log_prob(z).sum(-1))
        assert weights.scale == 1.0

    def test_a_subsampled_inner_plate_is_a_scale_of_its_own(self):
        model, guide = gaussian(LinearGaussian)

        def model_of_two_pixels(x):
            with pyro.plate("data", len(x), dim=-1):
                mean = model.mean(model.latent()).transpose(-1, -2)
                mean = mean.reshape(*mean.shape[:-3], 3, len(x))
                with pyro.plate("pixels", 3, subsample=torch.tensor([0, 2]), dim=-2):
                    pyro.sample("x", dist.Normal(mean[..., [0, 2], :], model.noise), obs=x.T[[0, 2]])

        x = model.data(4)
        weights = log_weights((model_of_two_pixels, guide), x, num_samples=2)
        assert weights.rescaled == ("x",)
        z = weights.guide.nodes["z"]["value"][:, 0]
        terms = dist.Normal(model.mean(z), model.noise).log_prob(x)
        torch.testing.assert_close(weights.log_likelihood, 1.5 * terms[..., [0, 2]].sum(-1))

    def test_an_auxiliary_site_of_the_guide_is_part_of_the_proposal(self):
        model = LinearGaussian()
        guide = GaussianGuide(model)

        def by_noise(x):
            loc, covariance = guide.moments(x)
            root = torch.linalg.cholesky(covariance)
            with pyro.plate("data", len(x), dim=-1):
                noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
                noise = pyro.sample("noise", noise, infer={"is_auxiliary": True})
                z = loc + noise @ root.T
                pyro.sample("z", dist.Delta(z, -root.logdet(), event_dim=1))

        x = model.data(3)
        weights = log_weights((model, by_noise), x, num_samples=4)
        assert [*weights.proposal_terms] == ["noise", "z"]
        torch.testing.assert_close(weights.total, model.log_p(x).expand(4, 3))

    def test_keywords_reach_both_programs(self):
        def model(x, *, loc):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(loc, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x, *, loc):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((x + loc) / 2, 0.5**0.5))

        x = torch.randn(3)
        weights = log_weights((model, guide), x, loc=2.0, num_samples=2)
        torch.testing.assert_close(weights.total, dist.Normal(2.0, 2**0.5).log_prob(x).expand(2, 3))

    def test_conditioning_observes_a_latent_site(self):
        def model(x):
            with pyro.plate("data", len(x), dim=-1):
                a = pyro.sample("a", dist.Normal(0.0, 1.0))
                b = pyro.sample("b", dist.Normal(0.6 * a, 0.8))
                pyro.sample("x", dist.Normal(b, 1.0), obs=x)

        x = torch.randn(3)
        a = torch.tensor([0.5, -1.0, 0.0])

        def guide(x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("b", dist.Normal(0.6 * a, 0.8))

        weights = log_weights((poutine.condition(model, data={"a": a}), guide), x, num_samples=2)
        assert [*weights.latent_terms] == ["b"]
        assert [*weights.observed_terms] == ["a", "x"]
        torch.testing.assert_close(weights.observed_terms["a"], dist.Normal(0.0, 1.0).log_prob(a).expand(2, 3))

    def test_a_model_without_latent_sites_weighs_by_its_likelihood(self):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

        def guide(x):
            pass

        x = torch.randn(3)
        weights = log_weights((model, guide), x, num_samples=2)
        torch.testing.assert_close(weights.total, dist.Normal(0.0, 1.0).log_prob(x).expand(2, 3))

    def test_a_stock_automatic_guide_with_a_site_for_each_latent_works(self):
        model = LinearGaussian()
        x = model.data(3)
        guide = AutoNormal(model, init_scale=0.3)
        weights = log_weights((model, guide), x, num_samples=2)
        assert weights.total.shape == (2, 3)
        z = weights.guide.nodes["z"]["value"]
        q = dist.Normal(guide.locs.z, guide.scales.z).log_prob(z).sum(-1)
        torch.testing.assert_close(weights.log_proposal, q)

    def test_gradients_are_those_of_the_formula(self):
        model = LinearGaussian()
        guide = GaussianGuide(model, shift=0.3)
        x = model.data(2)
        parameters = [*model.parameters(), *guide.parameters()]
        weights = log_weights((model, guide), x, num_samples=3)
        z = weights.guide.nodes["z"]["value"]
        noise = torch.linalg.solve_triangular(guide.factor.detach(), (z - guide.moments(x)[0])[..., None], upper=False)
        z = guide.proposal(x).loc + (guide.factor.tril() @ noise.detach())[..., 0]
        formula = (
            dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
            + dist.Normal(model.mean(z), model.noise).log_prob(x).sum(-1)
            - guide.proposal(x).log_prob(z)
        )
        expected = torch.autograd.grad(formula.sum(), parameters)
        torch.testing.assert_close(torch.autograd.grad(weights.total.sum(), parameters), expected)


class TestCost:
    def test_the_encoder_sees_each_datum_once_and_the_decoder_each_draw_once(self):
        class Networks(LinearGaussian):
            def __init__(self):
                super().__init__()
                self.encoder, self.decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)

            def mean(self, z):
                return self.decoder(z)

            def guide(self, x):
                with pyro.plate("data", len(x), dim=-1):
                    pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))

        pair = Networks()
        rows = {"encoder": [], "decoder": []}
        for name, seen in rows.items():
            network = getattr(pair, name)
            network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].shape[:-1].numel()))
        log_weights((pair, pair.guide), torch.randn(5, 3), num_samples=7, plates=PLATES)
        assert rows == {"encoder": [5], "decoder": [35]}

    def test_told_plates_spare_the_run_that_finds_them(self):
        model, guide = gaussian(LinearGaussian)
        runs = []

        def counted(x):
            runs.append(x)
            return model(x)

        x = model.data(3)
        log_weights((counted, guide), x, plates=find_plates((model, guide), x))
        assert len(runs) == 1


class TestRandomNumbers:
    def test_finding_plates_draws_none(self):
        model, guide = gaussian(LinearGaussian)
        x = model.data(3)
        before = torch.get_rng_state()
        assert find_plates((model, guide), x) == PLATES
        assert torch.equal(torch.get_rng_state(), before)

    def test_one_seed_one_result(self):
        model = LinearGaussian()
        guide = GaussianGuide(model, shift=1.0)
        x = model.data(3)

        def total(seed, **options):
            pyro.set_rng_seed(seed)
            return log_weights((model, guide), x, num_samples=4, **options).total

        assert torch.equal(total(1), total(1))
        assert torch.equal(total(1), total(1, plates=PLATES))
        assert not torch.equal(total(1), total(2))

    def test_particles_and_data_have_noise_of_their_own(self):
        model, guide = gaussian(LinearGaussian)
        z = log_weights((model, guide), model.data(1).expand(3, -1), num_samples=4).guide.nodes["z"]["value"]
        assert len(z.flatten().unique()) == z.numel() == 24


def latent(name="z", loc=0.0):
    return pyro.sample(name, dist.Normal(loc, 1.0))


def observe(z, x):
    return pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def plain_model(x):
    with pyro.plate("data", len(x)):
        observe(latent(), x)


def plain_guide(x):
    with pyro.plate("data", len(x)):
        latent(loc=x / 2)


def latent_outside(x):
    z = latent()
    with pyro.plate("data", len(x)):
        observe(z, x)


def observed_outside(x):
    with pyro.plate("data", len(x)):
        z = latent()
        y = latent("y")
    pyro.sample("x", dist.Normal((z + y).sum(), 1.0), obs=x.sum())


def observed_outside_guide(x):
    with pyro.plate("data", len(x)):
        latent()
        latent("y")


def factor_outside(x):
    with pyro.plate("data", len(x)):
        observe(latent(), x)
    pyro.factor("penalty", torch.tensor(-1.0))


def without_plate(x):
    observe(pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0).to_event(1)), x.sum())


def without_plate_guide(x):
    pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


def sequential(x):
    for row in pyro.plate("data", len(x)):
        pyro.sample(f"x_{row}", dist.Normal(latent(f"z_{row}"), 1.0), obs=x[row])


def sequential_guide(x):
    for row in pyro.plate("data", len(x)):
        latent(f"z_{row}")


def guide_with_more(x):
    with pyro.plate("data", len(x)):
        latent()
        latent("y")


def guide_outside(x):
    latent()


def without_sites(x):
    pass


def model_with_more(x):
    with pyro.plate("data", len(x)):
        observe(latent() + latent("y"), x)


refusals = {
    "latent outside": (latent_outside, guide_outside, ["'z'", "'data'", 'with pyro.plate("data", ...)']),
    "latent of the guide outside": (plain_model, guide_outside, ["'z'", "'data'", 'with pyro.plate("data", ...)']),
    "observed outside": (observed_outside, observed_outside_guide, ["'x'", "'data'", 'with pyro.plate("data", ...)']),
    "factor outside": (factor_outside, plain_guide, ["'penalty'", "'data'", 'with pyro.plate("data", ...)']),
    "no plate": (without_plate, without_plate_guide, ["'z', 'x'", 'with pyro.plate("data", len(x)):']),
    "sequential plate": (sequential, sequential_guide, ["'z_0', 'z_1'", 'with pyro.plate("data", len(x)):']),
    "more in the guide": (plain_model, guide_with_more, ["'y'", ["z"], 'infer={"is_auxiliary": True}']),
    "more in the model": (model_with_more, plain_guide, ["'y'", ["z"], "pyro.sample('y', ...)"]),
    "no site": (without_sites, without_sites, ["model", "plate"]),
}


class TestRefusals:
    @pytest.mark.parametrize(("model", "guide", "words"), refusals.values(), ids=refusals.keys())
    def test_programs(self, model, guide, words):
        with refused(*words):
            log_weights((model, guide), torch.randn(3), num_samples=2)
        with refused(*words):
            find_plates((model, guide), torch.randn(3))
        with refused(*words):
            log_weights((model, guide), torch.randn(3), num_samples=2, plates=PLATES)

    @pytest.mark.parametrize("guide", [AutoDiagonalNormal, AutoMultivariateNormal, AutoIAFNormal])
    @pytest.mark.parametrize("told", [None, PLATES], ids=["found plates", "told plates"])
    def test_an_automatic_guide_with_one_joint_site(self, guide, told):
        model = LinearGaussian()
        with refused(f"'_{guide.__name__}_latent'", "AutoNormal", "amortized"):
            log_weights((model, guide(model)), model.data(3), plates=told)

    @pytest.mark.parametrize("outermost", ["rows", "columns"])
    def test_several_plates_that_could_count_the_data(self, outermost):
        names = ["'rows'", "'columns'"]
        with refused(*names, "plates=Plates(data=..., nesting=...)"):
            log_weights(two_plates("rows", outermost), torch.randn(7, 3))

    def test_scaled_densities_where_they_are_asked_for(self):
        model, guide = gaussian(LinearGaussian)
        x = model.data(3)
        log_weights((model, guide), x).require_densities("the bound")
        scaled = log_weights((poutine.scale(model, 0.5), poutine.scale(guide, 0.5)), x)
        with refused("'z'", "poutine.scale", "the bound"):
            scaled.require_densities("the bound")

    def test_no_particles(self):
        with refused("num_samples", 0, 1):
            log_weights((plain_model, plain_guide), torch.randn(3), num_samples=0)

    @pytest.mark.parametrize("told", [None, PLATES], ids=["found plates", "told plates"])
    def test_a_proposal_that_is_not_a_number(self, told):
        def guide(x):
            with pyro.plate("data", len(x)):
                latent(loc=torch.where(x == x[1], torch.nan, x))

        with refused("'z'", "guide", "NaN", "datum 1"):
            log_weights((plain_model, guide), torch.randn(3), num_samples=2, plates=told)

    @pytest.mark.parametrize("told", [None, PLATES], ids=["found plates", "told plates"])
    def test_a_likelihood_that_is_not_a_number(self, told):
        def model(x):
            with pyro.plate("data", len(x)):
                observe(torch.where(x == x[2], torch.nan, latent()), x)

        with refused("'x'", "model", "NaN", "datum 2"):
            log_weights((model, plain_guide), torch.randn(3), num_samples=2, plates=told)

    def test_a_scale_below_zero(self):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x, -1.0))

        with refused("'z'", "guide", "NaN", 3):
            log_weights((plain_model, guide), torch.randn(3))

    def test_an_error_of_the_program_stays_as_it_is(self):
        def model(x):
            with pyro.plate("data", len(x)):
                latent()
                pyro.sample("x", dist.Bernoulli(torch.tensor(1.5)), obs=x)

        with pytest.raises(ValueError, match="Expected parameter probs"):
            log_weights((model, plain_guide), torch.ones(3))

        def broken(x):
            raise ValueError("mine")

        with pytest.raises(ValueError, match=r"^mine"):
            log_weights((plain_model, broken), torch.randn(3))

    def test_an_input_error_of_the_program_is_one_line(self):
        """Pyro appends a table of shapes to what is raised within a program."""

        def refusing(x):
            with pyro.plate("data", len(x)):
                latent()
                raise InputError("mine")

        with refused("mine"):
            log_weights((refusing, plain_guide), torch.randn(3))

    def test_deeper_plates_than_were_told(self):
        def model(x):
            with pyro.plate("data", len(x)):
                latent()
                with pyro.plate("pixels", 2):
                    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x.T)

        def guide(x):
            with pyro.plate("data", len(x)):
                latent()

        with refused(1, "find_plates((model, guide), x)"):
            weigh(model, guide, (torch.randn(3, 2),), {}, 2, None)


def bernoulli(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=z).to_event(1), obs=x)


def gamma(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Gamma(z.exp(), 1.0).to_event(1), obs=x)


def uniform(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Uniform(z - 100, z + 100).to_event(1), obs=x)


def dirichlet(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Dirichlet(z.exp()), obs=x)


def normal_pair(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide_of_two(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def normal_guide(x):
    with pyro.plate("data", len(x)):
        latent()


class TestSupport:
    @pytest.mark.parametrize(
        ("model", "words"),
        [
            (bernoulli, [2, 6, "Bernoulli, {0, 1}", "0.37, at [1, 0]", 'binarize="dynamic"']),
            (
                gamma,
                [1, 6, "Gamma, GreaterThanEq(lower_bound=0.0)", "-2, at [2, 1]"],
            ),
            (dirichlet, [2, 3, "Dirichlet, Simplex", "0.37, at [1]"]),
        ],
        ids=["Bernoulli", "Gamma", "Dirichlet"],
    )
    def test_data_outside_are_counted_and_located(self, model, words):
        x = torch.tensor([[1.0, 0.0], [0.37, 1.0], [1.0, -2.0]])
        with refused("'x'", *words):
            log_weights((model, guide_of_two), x)

    def test_a_distribution_that_does_not_validate_is_looked_at_all_the_same(self):
        """As in Pyro's tutorial, which puts grey values into a Bernoulli density, where they have none."""

        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Bernoulli(logits=latent(), validate_args=False), obs=x)

        with refused("'x'", 1, 2, "Bernoulli, {0, 1}", 'binarize="dynamic"'):
            log_weights((model, plain_guide), torch.tensor([0.0, 0.4]))

    def test_a_support_that_the_latent_moves_is_left_to_the_weights(self):
        assert log_weights((uniform, guide_of_two), torch.zeros(3, 2)).total.isfinite().all()

    @pytest.mark.parametrize("event_dim", [0, 1])
    def test_a_distribution_that_does_not_know_its_support_is_weighed(self, event_dim):
        class Silent(dist.TorchDistribution):
            arg_constraints = {}  # noqa: RUF012

            def expand(self, batch_shape, _instance=None):
                return Silent(batch_shape, validate_args=False)

            def log_prob(self, value):
                return dist.Normal(0.0, 1.0).log_prob(value)

        def model(x):
            with pyro.plate("data", len(x)):
                latent()
                pyro.sample("x", Silent((len(x), 2)[: 1 + event_dim], validate_args=False).to_event(event_dim), obs=x)

        x = torch.randn(3, 2) if event_dim else torch.randn(3)
        expected = dist.Normal(0.0, 1.0).log_prob(x).reshape(3, -1).sum(-1)
        torch.testing.assert_close(log_weights((model, normal_guide), x).log_likelihood[0], expected)

    @pytest.mark.parametrize("event_dim", [0, 1])
    def test_one_observed_number_outside_for_all_data(self, event_dim):
        def model(x):
            with pyro.plate("data", len(x)):
                latent()
                low = torch.zeros((len(x), 2)[: 1 + event_dim])
                pyro.sample("x", dist.Uniform(low, 1.0).to_event(event_dim), obs=torch.tensor(2.0))

        count = 3 * 2**event_dim
        with refused("'x'", count, "Uniform", "2, at [0"):
            log_weights((model, normal_guide), torch.zeros(3))

    def test_missing_values_are_refused(self):
        x = torch.tensor([[1.0, 0.0], [0.5, torch.nan]])
        with refused("'x'", 1, 4, "Normal", "nan, at [1, 1]"):
            log_weights((normal_pair, guide_of_two), x)

    def test_draws_that_the_prior_cannot_have_are_located(self):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(pyro.sample("z", dist.Exponential(1.0)), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.tensor([3.0, -3.0]), 1e-3))

        with refused("'z'", 1, 2, "Exponential", "at [1]", "guide"):
            log_weights((model, guide), torch.zeros(2))

    def test_values_under_a_mask_must_be_numbers_of_the_support_too(self):
        def model(x):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(latent(), 1.0), obs=x, obs_mask=~x.isnan())

        with refused("'x_observed'", 1, 2, "nan, at [1]", "mask"):
            log_weights((model, plain_guide), torch.tensor([1.0, torch.nan]))


def test_swapped_programs_are_refused():
    model = LinearGaussian()
    guide = GaussianGuide(model)
    x = model.data(3)
    with refused("obs=x", "swapped"):
        log_weights((guide, model), x)
    with refused("'x'", "guide", "swapped"):
        log_weights((model, model), x)
