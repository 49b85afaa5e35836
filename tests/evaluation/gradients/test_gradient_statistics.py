"""Means, variances and signal-to-noise ratios of gradients, against closed forms and against all draws held at once."""

import math
from functools import partial
from itertools import count

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import QUANTILE, refused
from programs import GaussianGuide, LinearGaussian, Mixture, MixtureGuide, Tutorial, functions
from pyro.nn import PyroModule
from scipy import stats
from torch import nn

from pyrovae import VAE
from pyrovae.evaluation import GradientStatistics, gradient_statistics
from pyrovae.evaluation.gradients.running_moments import RunningMoments
from pyrovae.objectives import CUBO, ELBO, IWAE, MIWAE, VIMCO

pytestmark = pytest.mark.usefixtures("float64")
LEVEL = 1e-5


def pair(shift=0.3, widen=1.3):
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=shift, widen=widen, diagonal=True)


def stacked(objective, model, guide, x, repeats, seed):
    """The gradients of all parameters by name, each of shape ``(repeats, *shape)``."""
    module = objective(model, guide)
    module.start(x)
    pyro.set_rng_seed(seed)
    named = dict(module.named_parameters())
    draws = [torch.autograd.grad(module(x), list(named.values()), allow_unused=True) for _ in range(repeats)]
    zero = [torch.zeros_like(value) for value in named.values()]
    columns = zip(*[[z if g is None else g for g, z in zip(draw, zero, strict=True)] for draw in draws], strict=True)
    return dict(zip(named, map(torch.stack, columns), strict=True))


@pytest.mark.parametrize("particles", [1, 3])
def test_the_gradient_of_the_guides_offset(particles):
    r"""It is :math:`\sum_b P (z_b - \mu_b)`, and so normal, with the posterior's precision P and mean :math:`\mu`."""
    model, guide = pair()
    x, repeats = model.data(4), 600
    found = gradient_statistics((model, guide), x, ELBO(particles), repeats)
    (mean, covariance), (posterior_mean, posterior) = guide.moments(x), model.posterior(x)
    precision = posterior.inverse()
    expected = (mean - posterior_mean).sum(0) @ precision
    variance = (precision @ covariance @ precision).diagonal() * len(x) / particles
    expected, variance = expected.detach().numpy(), variance.detach().numpy()
    z = (found.mean["guide.offset"] - expected) / np.sqrt(variance / repeats)
    assert np.abs(z).max() < QUANTILE
    ratio = found.variance["guide.offset"] / variance * (repeats - 1)
    low, high = stats.chi2.interval(1 - LEVEL, repeats - 1)
    assert ((low < ratio) & (ratio < high)).all()
    np.testing.assert_allclose(found.snr["guide.offset"], np.abs(expected) / np.sqrt(variance), rtol=0.2, atol=0.1)
    np.testing.assert_allclose(found.standard_error["guide.offset"], np.sqrt(variance / repeats), rtol=0.2)
    low, high = (ends["guide.offset"] for ends in found.interval(1 - LEVEL))
    assert ((low < expected) & (expected < high)).all()


@pytest.mark.parametrize(
    "objective",
    [IWAE(5), IWAE(4, "dreg"), MIWAE(2, 3), VIMCO(4), ELBO(2, analytic_kl=True)],
    ids=lambda each: type(each).__name__,
)
def test_one_by_one_is_all_at_once(objective):
    model, guide = pair()
    x = model.data(6)
    found = gradient_statistics((model, guide), x, objective, 7, seed=3)
    draws = stacked(objective, model, guide, x, 7, seed=3)
    assert found.num_samples == 7
    assert list(found.mean) == list(found.variance) == list(draws)
    for name, gradients in draws.items():
        assert found.mean[name].dtype == np.float64
        np.testing.assert_allclose(found.mean[name], gradients.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.variance[name], gradients.var(0), rtol=1e-12, atol=1e-12)


def test_a_mean_far_from_zero_costs_no_digits():
    vectors = 1e9 + torch.randn(500, 3)
    moments = RunningMoments(3, vectors.device)
    for vector in vectors:
        moments.add(vector)
    torch.testing.assert_close(moments.variance, (vectors - 1e9).var(0), rtol=1e-6, atol=0)


def test_gradients_of_single_precision_are_added_up_in_double():
    torch.set_default_dtype(torch.float32)
    model, guide = pair()
    found = gradient_statistics((model, guide), model.data(4), IWAE(3), 5)
    assert all(value.dtype == np.float64 for value in [*found.mean.values(), *found.variance.values()])


class TestPrograms:
    """Whose a parameter is, and what it is called."""

    def test_modules(self):
        model, guide = pair()
        found = gradient_statistics((model, guide), model.data(3), IWAE(2), 2)
        assert list(found.mean) == [
            *(f"model.{name}" for name, _ in model.named_parameters()),
            *(f"guide.{name}" for name, _ in guide.named_parameters()),
        ]
        assert {name: found.mean[f"guide.{name}"].shape for name, _ in guide.named_parameters()} == {
            name: value.shape for name, value in guide.named_parameters()
        }

    def test_functions_have_the_gradients_of_modules(self):
        model, guide = pair()
        x = model.data(5)
        modules = gradient_statistics((model, guide), x, IWAE(4), 6)
        plain = gradient_statistics(functions(model, guide), x, IWAE(4), 6)
        names = {
            "model.decoder.weight": "model.weight",
            "model.decoder.bias": "model.bias",
            "model.noise": "model.noise_unconstrained",
            **{name: name for name in ("guide.slope", "guide.offset", "guide.factor")},
        }
        assert set(plain.mean) == set(names)
        for name, other in names.items():
            np.testing.assert_allclose(plain.mean[name], modules.mean[other], rtol=1e-7, atol=1e-7)
            np.testing.assert_allclose(plain.variance[name], modules.variance[other], rtol=1e-7, atol=1e-7)
        assert plain.programs["model"].size == modules.programs["model"].size == 10
        assert plain.programs["guide"].snr == pytest.approx(modules.programs["guide"].snr)

    @pytest.mark.parametrize("wrap", [lambda method: method, partial], ids=["bound", "partial"])
    def test_methods_of_one_module(self, wrap):
        both = Tutorial()
        found = gradient_statistics((wrap(both.model), wrap(both.guide)), torch.randn(4, 3), ELBO(), 2)
        assert set(found.mean) == {
            f"{part}.{end}" for part in ("model.decoder", "guide.encoder") for end in ("weight", "bias")
        }

    def test_a_statement_that_names_everything_to_both(self):
        class Registering(Tutorial):
            def model(self, x):
                pyro.module("everything", self)
                return super().model(x)

            def guide(self, x):
                pyro.module("everything", self)
                return super().guide(x)

        both = Registering()
        found = gradient_statistics(both, torch.randn(4, 3), ELBO(), 2)
        assert {name.partition(".")[0] for name in found.mean if "decoder" in name} == {"model"}
        assert {name.partition(".")[0] for name in found.mean if "encoder" in name} == {"guide"}

    def test_a_prior_made_by_the_encoder_shares_it(self):
        class Vamp(Tutorial):
            def __init__(self):
                super().__init__()
                self.pseudo = nn.Parameter(torch.randn(3))

            def model(self, x):
                loc, log_scale = self.encoder(self.pseudo).chunk(2, -1)
                with pyro.plate("data", len(x)):
                    z = pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
                    pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

        both = Vamp()
        found = gradient_statistics(both, torch.randn(4, 3), IWAE(3), 3)
        assert set(found.programs) == {"model", "guide", "shared"} - {"guide"}
        assert {"shared.encoder.weight", "shared.encoder.bias", "model.pseudo", "model.decoder.weight"} <= set(found.mean)
        assert found.programs["shared"].size == sum(value.numel() for value in both.encoder.parameters())

    def test_what_nothing_depends_on_has_a_gradient_of_zero(self):
        both = Tutorial()
        both.head = nn.Linear(2, 2)
        model, guide = pair()
        guide.forgotten = nn.Parameter(torch.ones(3))
        of_methods = gradient_statistics(both, torch.randn(4, 3), ELBO(), 3)
        of_modules = gradient_statistics((model, guide), model.data(4), ELBO(), 3)
        assert of_methods.programs["unused"] == (6, 0.0, 0.0, pytest.approx(math.nan, nan_ok=True), 6)
        assert (of_modules.mean["guide.forgotten"] == 0).all()
        assert of_modules.parameters["guide.forgotten"].constant == 3

    def test_a_guide_that_is_a_point(self):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z * pyro.param("gain", torch.ones(())), 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta(pyro.param("slope", torch.tensor(0.3)) * x))

        x = torch.randn(5)
        found = gradient_statistics((model, guide), x, ELBO(), 3)
        assert set(found.mean) == {"model.gain", "guide.slope"}
        expected = (0.3 * x * x - (x - 0.3 * x) * x).sum()  # of z^2 / 2 + (x - z)^2 / 2 at z = 0.3 x
        np.testing.assert_allclose(found.mean["guide.slope"], expected, rtol=1e-7)
        assert found.snr["guide.slope"] == math.inf

    def test_a_discrete_guide(self):
        mixture = Mixture()
        found = gradient_statistics((mixture, MixtureGuide(mixture, sharpness=0.5)), torch.randn(4), VIMCO(3), 5)
        assert set(found.programs) == {"model", "guide"}
        assert found.variance["guide.sharpness"] > 0

    def test_frozen_parameters_are_left_out(self):
        model, guide = pair()
        model.requires_grad_(False)
        assert set(gradient_statistics((model, guide), model.data(3), CUBO(2.0, 4), 2).programs) == {"guide"}


class Noisy(PyroModule):
    """A model whose decoder has a layer with buffers, or one with noise of its own."""

    def __init__(self, layer):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 3))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = self.decoder(z.flatten(0, -2)).view(*z.shape[:-1], 3)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


class TestNothingIsChanged:
    def test_generators_and_gradients(self):
        model, guide = pair()
        x = model.data(3)
        guide.offset.grad = torch.full_like(guide.offset, 7.0)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        first, again, other = (gradient_statistics((model, guide), x, IWAE(2), 3, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
        assert (guide.offset.grad == 7.0).all()
        assert model.weight.grad is None
        np.testing.assert_array_equal(first.mean["model.weight"], again.mean["model.weight"])
        assert not np.array_equal(first.mean["model.weight"], other.mean["model.weight"])

    @pytest.mark.parametrize("named", [True, False], ids=["module", "function"])
    def test_buffers_and_modes(self, named):
        _, guide = pair()
        model = Noisy(nn.BatchNorm1d(4))

        def function(x):
            pyro.module("decoder", model.decoder)
            model(x)

        before = {name: value.clone() for name, value in model.named_buffers()}
        layer = model.decoder[1]
        kept = layer.running_mean
        found = gradient_statistics((model if named else function, guide), torch.randn(5, 3), IWAE(3), 4)
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
        assert layer.running_mean is kept
        assert model.training
        assert found.variance["model.decoder.0.weight"].min() > 0

    def test_the_mode_is_the_callers(self):
        """With the latent at a point, dropout is all the noise there is."""

        class Point(GaussianGuide):
            def proposal(self, x):
                return dist.Delta(x @ self.slope.T + self.offset).to_event(1)

        model = Noisy(nn.Dropout(0.5))
        guide, x = Point(LinearGaussian()), torch.randn(5, 3)
        model.train()
        assert gradient_statistics((model, guide), x, ELBO(), 4).variance["guide.offset"].min() > 0
        model.eval()
        still = gradient_statistics((model, guide), x, ELBO(), 4)
        assert (still.variance["guide.offset"] == 0).all()
        assert still.programs["guide"].constant == still.programs["guide"].size
        assert not model.training

    def test_gradients_are_on_inside(self):
        model, guide = pair()
        with torch.no_grad():
            found = gradient_statistics((model, guide), model.data(3), IWAE(2), 3)
            assert not torch.is_grad_enabled()
        assert found.programs["model"].norm > 0


class TestSummary:
    made = GradientStatistics(
        mean={"model.a": np.array([3.0, 4.0]), "guide.b": np.array([[1.0, 0.0], [2.0, -6.0]])},
        variance={"model.a": np.array([9.0, 1.0]), "guide.b": np.array([[0.0, 0.0], [4.0, 4.0]])},
        num_samples=50,
    )

    def test_a_group_is_the_mean_of_its_ratios(self):
        assert self.made.programs["model"] == (2, 5.0, 5.0, 2.5, 0)

    def test_what_has_no_variance_is_left_out_and_counted(self):
        snr = self.made.snr["guide.b"]
        assert snr[0, 0] == math.inf
        assert np.isnan(snr[0, 1])
        assert self.made.programs["guide"] == (4, pytest.approx(math.sqrt(41)), 2.0, 2.0, 2)

    def test_nothing_varies(self):
        still = GradientStatistics({"guide.b": np.ones(2)}, {"guide.b": np.zeros(2)}, 5)
        assert math.isnan(still.programs["guide"].snr)

    def test_each_mean_has_its_error_and_its_interval(self):
        r"""Student's, of R draws: :math:`\bar g \pm t\, \hat\sigma / \sqrt R`."""
        error = np.array([3.0, 1.0]) / math.sqrt(50)
        np.testing.assert_allclose(self.made.standard_error["model.a"], error)
        low, high = self.made.interval(0.9)
        np.testing.assert_allclose(low["model.a"], [3.0, 4.0] - stats.t(49).ppf(0.95) * error)
        np.testing.assert_allclose(high["model.a"], [3.0, 4.0] + stats.t(49).ppf(0.95) * error)
        assert self.made.interval()[0]["guide.b"].shape == (2, 2)

    def test_the_floor_is_what_noise_alone_shows(self):
        noise = torch.randn(50, 20_000).numpy()
        found = GradientStatistics({"guide.b": noise.mean(0)}, {"guide.b": noise.var(0, ddof=1)}, 50)
        assert found.programs["guide"].snr == pytest.approx(found.floor, rel=0.03)

    def test_table(self):
        lines = str(self.made).splitlines()
        assert lines[0] == "gradient of the loss by 50 draws; noise alone would show an SNR of 0.1128"
        rows = [line.split() for line in lines[3:] if line]
        assert [row[0] for row in rows] == ["model", "guide", "model.a", "guide.b"]
        assert rows[0] == ["model", "2", "5", "5", "2.5000", "0"]
        assert len({len(line) for line in lines[2:] if line}) == 1

    def test_table_of_a_vae(self):
        vae = VAE((4, 4), latent_dim=2)
        text = str(gradient_statistics(vae, torch.rand(3, 4, 4).round(), ELBO(), 2))
        assert all(f"  {program} " in text for program in ("model", "guide"))


def test_more_particles_drown_the_guides_gradient_unless_it_is_doubly_reparameterised():
    r"""The guide's ratio goes as :math:`1/\sqrt K` and, by ``dreg``, as :math:`\sqrt K`: a factor of 4 from 4 to 64; the
    model's grows as the latter (Rainforth et al., 2018, theorem 1; Tucker et al., 2019, section 4)."""
    model, guide = pair(shift=0.2, widen=1.1)
    x = model.data(40)
    ratios = {}
    for estimator in ("reparameterized", "dreg"):
        few, many = (gradient_statistics((model, guide), x, IWAE(k, estimator), 120).programs for k in (4, 64))
        ratios[estimator] = many["guide"].snr / few["guide"].snr
        ratios["model"] = many["model"].snr / few["model"].snr
    assert 2 < 1 / ratios["reparameterized"] < 6
    assert 2.5 < ratios["dreg"] < 6
    assert 2.5 < ratios["model"] < 6


class TestErrors:
    @pytest.mark.parametrize("repeats", [1, 0, -3])
    def test_a_variance_needs_two(self, repeats):
        with refused("num_samples", repeats, 2):
            gradient_statistics(pair(), torch.randn(2, 3), IWAE(2), repeats)

    @pytest.mark.parametrize("objective", [IWAE, "IWAE"], ids=str)
    def test_an_objective_is_expected(self, objective):
        with refused("objective", "pyrovae.IWAE(50)"):
            gradient_statistics(pair(), torch.randn(2, 3), objective)

    def test_nothing_to_train(self):
        model, guide = (program.requires_grad_(False) for program in pair())
        with refused("requires_grad_(True)"):
            gradient_statistics((model, guide), model.data(2), IWAE(2))

    def test_a_gradient_that_is_not_finite_names_its_parameter(self):
        class Infinite(LinearGaussian):
            def mean(self, z):
                return super().mean(z) + (self.bias - self.bias.detach()).abs().sqrt()

        model = Infinite()
        with refused("model.bias", 3, "pyrovae.log_weights((model, guide), x)"):
            gradient_statistics((model, GaussianGuide(LinearGaussian())), model.data(2), IWAE(2), 2)

    def test_progress_is_shown_once_the_call_has_taken_two_seconds(self, capsys, monkeypatch):
        model, guide = pair()
        monkeypatch.setattr("tqdm.std.time", lambda: 1.0)
        gradient_statistics((model, guide), model.data(2), IWAE(2), 2)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("tqdm.std.time", partial(next, count(0.0, 3.0)))
        gradient_statistics((model, guide), model.data(2), IWAE(2), 2, progress=False)
        assert capsys.readouterr().err == ""
        gradient_statistics((model, guide), model.data(2), IWAE(2), 2)
        assert "2/2" in capsys.readouterr().err
