"""Annealed chains against programs whose log p(x) is known, and what they refuse."""

from functools import partial
from itertools import count, product

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from annealed import (
    SCHEDULES,
    STARTS,
    WAYS,
    Scales,
    Stateless,
    at_a_point,
    one_start,
    pair,
    scalar,
    starts,
    with_another_site,
)
from checks import assert_mean, refused, slow_but
from programs import WithPixelPlate, functions

import pyrovae
from pyrovae.engine.log_weights import log_weights
from pyrovae.evaluation import annealed_importance_sampling, bidirectional
from pyrovae.likelihoods import Normal
from pyrovae.networks import MLP
from pyrovae.priors import UniformSphere
from pyrovae.vae import VAE

pytestmark = pytest.mark.usefixtures("float64")


class TestForwards:
    @pytest.mark.parametrize(("start", "schedule"), slow_but(lambda *way: way in WAYS, product(STARTS, SCHEDULES)))
    def test_the_mean_weight_is_p(self, start, schedule):
        """At few temperatures, where single weights are far off."""
        model, guide = pair()
        x = model.data(1).expand(1000, 3)
        found = annealed_importance_sampling((model, guide), x, 8, 8, start=start, schedule=schedule, steps=3)
        assert found.log_weights.shape == (8, 1000)
        assert_mean(torch.from_numpy(np.exp(found.log_weights)) / model.log_p(x).exp(), 1.0, detects=0.3)
        assert found.log_weights.std() > 0.1

    def test_a_single_temperature_is_importance_sampling(self):
        model, guide = pair()
        x = model.data(3)
        found = annealed_importance_sampling((model, guide), x, 500, 1, start="guide")
        weights = log_weights((model, guide), x, num_samples=500).total
        for ours, plain in zip(found.log_weights.T, weights.T.detach().numpy(), strict=True):
            assert scipy.stats.ks_2samp(ours, plain).pvalue > 1e-5

    @pytest.mark.parametrize(("latent_dim", "temperatures"), [(2, 60), pytest.param(10, 200, marks=pytest.mark.slow)])
    def test_its_interval_covers(self, latent_dim, temperatures):
        """Of 400 data, so that fewer than 93% are an interval of less than 95% with probability 0.95."""
        model, guide = pair(data_dim=latent_dim + 3, latent_dim=latent_dim)
        x = model.data(400)
        found = annealed_importance_sampling((model, guide), x, 16, temperatures, start="guide", steps=4)
        low, high = found.interval()
        exact = model.log_p(x).numpy()
        inside = ((low <= exact) & (exact <= high)).sum()
        assert scipy.stats.binom(400, 0.95).ppf(1e-5) <= inside
        assert found.standard_error.max() < 1.0

    @one_start
    def test_constrained_latents(self, start):
        programs = Scales()
        x = 2 * torch.randn(300, 2)
        found = annealed_importance_sampling(programs, x, 16, 40, start=start, steps=3)
        difference = torch.from_numpy(found.log_p) - programs.log_p(x)
        assert_mean(difference.exp(), 1.0, detects=0.1)
        assert difference.abs().max() < 1.0

    def test_functions_and_other_structures(self):
        model, guide = pair()
        x = model.data(50)
        seen = annealed_importance_sampling((model, guide), x, 4, 5, steps=3).log_p
        for programs in (functions(model, guide), (WithPixelPlate(), guide)):
            np.testing.assert_allclose(annealed_importance_sampling(programs, x, 4, 5, steps=3).log_p, seen)

    @one_start
    def test_recorded_is_eager(self, start, unfused):
        self.assert_compiled_is_eager(start)

    def test_compiled_is_eager(self):
        self.assert_compiled_is_eager("guide")

    def assert_compiled_is_eager(self, start):
        model, guide = pair()
        x = model.data(5)
        run = partial(annealed_importance_sampling, (model, guide), x, 4, 10, start=start, steps=3, max_rows=12)
        np.testing.assert_allclose(run(compile=True).log_weights, run(compile=False).log_weights, rtol=1e-6)

    @pytest.mark.cuda
    @starts
    def test_chains_in_a_cuda_graph_are_eager_chains(self, start):
        vae = VAE((4, 4), latent_dim=2).cuda()
        x = torch.bernoulli(torch.full((6, 4, 4), 0.3)).cuda()
        run = partial(annealed_importance_sampling, vae, x, 8, 30, start=start, steps=3)
        eager, graph = run(compile=False), run(compile=True)
        np.testing.assert_allclose(graph.log_weights, eager.log_weights, rtol=1e-6)
        np.testing.assert_array_equal(graph.log_weights, run(compile=True).log_weights)

    @pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning")
    def test_contexts_reach_the_programs(self):
        network = partial(MLP, hidden=(8,))
        vae = VAE((3,), 2, likelihood=Normal, context_shape=(2,), encoder=network, decoder=network)
        x, c = torch.randn(6, 3), torch.randn(6, 2)
        found = annealed_importance_sampling(vae, {"x": x, "c": c}, 16, 80, steps=4)
        plain = pyrovae.log_likelihood(vae, {"x": x, "c": c}, 20_000, proposal="mixture")
        error = np.hypot(found.standard_error, plain.standard_error)
        assert (abs(found.log_p - plain.log_p) < 4.42 * error + 0.02).all()
        assert error.max() < 0.3

    def test_the_same_seed_gives_the_same_and_leaves_others_alone(self):
        model, guide = pair()
        x = model.data(4)
        state = torch.get_rng_state()
        one, other = (annealed_importance_sampling((model, guide), x, 3, 4, steps=2, max_rows=6, seed=2) for _ in range(2))
        assert torch.equal(state, torch.get_rng_state())
        assert np.array_equal(one.log_weights, other.log_weights)
        assert not np.array_equal(
            one.log_weights, annealed_importance_sampling((model, guide), x, 3, 4, steps=2, max_rows=6, seed=3).log_weights
        )
        assert model.weight.grad is None

    def test_the_table(self):
        model, guide = pair()
        said = str(annealed_importance_sampling((model, guide), model.data(4), 3, 10, steps=1))
        assert "log p(x) of 4 data by 3 annealed chains each, 10 temperatures, in nats" in said
        assert "effective sample size" in said

    def test_progress_is_shown_once_the_call_has_taken_two_seconds(self, capsys, monkeypatch):
        model, guide = pair()
        run = partial(annealed_importance_sampling, (model, guide), model.data(4), 3, 10, steps=1)
        monkeypatch.setattr("tqdm.std.time", lambda: 1.0)
        run()
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("tqdm.std.time", partial(next, count(0.0, 3.0)))
        run(progress=False)
        assert capsys.readouterr().err == ""
        run()
        assert "10/10" in capsys.readouterr().err


class TestRefusals:
    def test_discrete_latents(self):
        def model(x):
            with pyro.plate("data", len(x)):
                c = pyro.sample("c", dist.Bernoulli(0.5))
                pyro.sample("x", dist.Normal(c, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("c", dist.Bernoulli(torch.full((len(x),), 0.5)))

        with refused("'c'", "Bernoulli", "log_likelihood"):
            annealed_importance_sampling((model, guide), torch.randn(3))

    def test_latents_on_a_sphere(self):
        vae = VAE((3,), 3, prior=UniformSphere, guide=pyrovae.guides.VonMisesFisher, likelihood=Normal)
        with refused("'z'", "Sphere", "log_likelihood"):
            annealed_importance_sampling(vae, torch.randn(2, 3))

    def test_points(self):
        model, _ = pair()
        with refused("'z'", "Delta", 'start="prior"'):
            annealed_importance_sampling((model, at_a_point), model.data(3), start="guide")

    def test_sites_that_are_drawn_beside_the_latents(self):
        model, _ = pair()
        with refused("'a'", 'start="prior"'):
            annealed_importance_sampling((model, partial(with_another_site, "auxiliary")), model.data(3), start="guide")

    def test_a_prior_that_cannot_be_drawn(self):
        for prior in (dist.ImproperUniform(dist.constraints.real, (), ()), dist.Normal(0.0, 1.0).mask(False)):
            with refused("'z'", "improper", 'start="guide"'):
                annealed_importance_sampling(scalar(prior, dist.Normal(0.0, 2.0)), torch.randn(3))

    def test_a_support_that_nobody_states(self):
        nowhere = Stateless(dist.Normal(0.0, 1.0))
        with refused("'z'", "Stateless", "`support`"):
            annealed_importance_sampling(scalar(nowhere, nowhere), torch.randn(3))

    def test_a_support_that_moves(self):
        def model(x):
            with pyro.plate("data", len(x)):
                low = pyro.sample("low", dist.Normal(0.0, 1.0))
                z = pyro.sample("z", dist.Uniform(low, low + 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                low = pyro.sample("low", dist.Normal(0.0, 1.0))
                pyro.sample("z", dist.Uniform(low, low + 1.0))

        for start in ("prior", "guide"):
            with refused("'z'", "Uniform", "z = low + (high - low) * w"):
                annealed_importance_sampling((model, guide), torch.randn(3), start=start)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"num_chains": 0}, ["num_chains", 0, 1]),
            ({"temperatures": 0}, ["temperatures", 0, 1]),
            ({"steps": 0}, ["steps", 0, 1]),
            ({"max_rows": 0}, ["max_rows", 0, 1]),
            ({"start": "posterior"}, ["start", "'posterior'", "'prior'", "'guide'"]),
            ({"schedule": "cosine"}, ["schedule", "'cosine'", "'sigmoid'", "'linear'", "'adaptive'"]),
        ],
    )
    @pytest.mark.parametrize("function", [annealed_importance_sampling, bidirectional])
    def test_settings(self, function, settings, words):
        model, guide = pair()
        with refused(*words):
            function((model, guide), model.data(3), **settings)
