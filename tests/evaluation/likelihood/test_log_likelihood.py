"""The estimates of log p(x) against closed forms, and what they promise about memory and noise."""

import math
import warnings
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from checks import assert_mean, refused, slow_but, warned
from programs import (
    Chain,
    ChainGuide,
    GaussianGuide,
    LatentPlateGuide,
    LinearGaussian,
    Mixture,
    MixtureGuide,
    Subsampled,
    Tutorial,
    WithDeterministic,
    WithLatentPlate,
    WithPixelPlate,
    functions,
    gaussian_kl,
    weight_variance,
)
from pyro import poutine
from scipy import stats
from torch import nn
from torch.utils.data import TensorDataset

from pyrovae import VAE
from pyrovae.evaluation import ImportanceSamplingWarning, LogLikelihood, log_likelihood

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]
LEVEL = 1e-5
"""The level of each statistical test: a right estimate fails one seed in 100,000."""


def exact():
    """A linear-Gaussian model with its posterior as guide."""
    model = LinearGaussian()
    return model, GaussianGuide(model)


def off():
    """The same with a guide that is moved, widened and without correlations: a good proposal, not a perfect one."""
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.1, widen=1.15, diagonal=True)


def narrow():
    """The same with a guide so narrow that the weights have no variance."""
    model = LinearGaussian()
    return model, GaussianGuide(model, widen=0.45)


def tutorial():
    pair = Tutorial()
    return pair.model, pair.guide


def chain(order):
    model = Chain()
    return model, ChainGuide(model, order)


def largest(z, trials: int) -> None:
    """None of so many independent standard normal numbers is too large at the level."""
    assert np.abs(z).max() < stats.norm.isf(LEVEL / trials / 2)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 30, 1000])
def test_exact_proposal_gives_log_p_with_every_weight(num_samples):
    model, guide = exact()
    x = model.data(9)
    estimate = log_likelihood((model, guide), x, num_samples, num_particles=(1, 3, 20))
    log_p = model.log_p(x).numpy()
    np.testing.assert_allclose(estimate.log_p, log_p, rtol=0, atol=1e-10)
    np.testing.assert_allclose(estimate.effective_sample_size, num_samples, rtol=1e-10)
    assert list(estimate.bounds) == [count for count in (1, 3, 20) if count <= num_samples]
    for bound in estimate.bounds.values():
        np.testing.assert_allclose(bound, log_p, rtol=0, atol=1e-10)
    if num_samples > 1:
        np.testing.assert_allclose(estimate.standard_error, 0, atol=1e-8)
    assert np.isnan(estimate.k_hat).all()


@pytest.mark.parametrize(
    ("model", "guide"),
    [
        (WithDeterministic, GaussianGuide),
        (WithPixelPlate, GaussianGuide),
        (WithLatentPlate, LatentPlateGuide),
    ],
)
def test_programs_of_another_structure(model, guide):
    model = model()
    x = model.data(5)
    estimate = log_likelihood((model, guide(model, widen=1.1, diagonal=True)), x, 2000)
    largest((estimate.log_p - model.log_p(x).numpy()) / estimate.standard_error, 5)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_latents_at_two_sites(order):
    model, guide = chain(order)
    x = model.data(6)
    estimate = log_likelihood((model, guide), x, 10)
    np.testing.assert_allclose(estimate.log_p, model.log_p(x).numpy(), atol=1e-10)


def test_plain_functions():
    model, guide = exact()
    x = model.data(6)
    estimate = log_likelihood(functions(model, guide), x, 10)
    np.testing.assert_allclose(estimate.log_p, model.log_p(x).numpy(), atol=1e-10)
    again = log_likelihood(functions(model, guide), x, 10, max_rows=6)
    np.testing.assert_allclose(again.log_p, estimate.log_p, atol=1e-10)


def test_methods_of_one_module():
    estimate = log_likelihood(tutorial(), torch.randn(4, 3), 2000)
    assert (estimate.log_p > estimate.bounds[1]).all()


def test_discrete_latents():
    model, guide = (mixture := Mixture()), MixtureGuide(mixture, sharpness=0.7)
    x = torch.randn(20)
    estimate = log_likelihood((model, guide), x, 2000)
    log_p = model.joint(x).logsumexp(-1).numpy()
    largest((estimate.log_p - log_p) / estimate.standard_error, 20)


def test_a_vae_of_parts():
    vae = VAE((4, 4), latent_dim=2)
    estimate = log_likelihood(vae, torch.bernoulli(torch.full((5, 4, 4), 0.3)), 500)
    assert (estimate.log_p > estimate.bounds[1]).all()


def test_elbo_is_below_log_p_by_the_divergence():
    model, guide = off()
    x = model.data(4000)
    elbo = log_likelihood((model, guide), x, 20, num_particles=(1,)).bounds[1]
    divergence = gaussian_kl(guide.moments(x), model.posterior(x))
    assert divergence.min() > 0.05
    assert_mean(torch.from_numpy(elbo) - model.log_p(x) + divergence, 0.0, detects=0.1 * divergence.mean().item())


def test_iwae_gap_approaches_half_the_relative_variance():
    """K (log p - IWAE_K) is Var(w/p)/2 + O(1/K); the known mean of the weights serves as control variate."""
    model, guide = off()
    x, particles = model.data(1000), 100
    estimate = log_likelihood((model, guide), x, 15 * particles, num_particles=(particles,))
    log_p = model.log_p(x).numpy()
    gap = np.expm1(estimate.log_p - log_p) - (estimate.bounds[particles] - log_p)
    expected = weight_variance(guide.moments(x), model.posterior(x)).mean().item() / 2
    assert 0.03 < expected < 0.3
    assert particles * gap.mean() == pytest.approx(expected, rel=0.05)


def test_bounds_rise_with_particles_to_log_p():
    model, guide = off()
    estimate = log_likelihood((model, guide), model.data(200), 1000)
    means = [bound.mean() for bound in estimate.bounds.values()]
    assert list(estimate.bounds) == [1, 5, 50, 500]
    assert means == sorted(means)
    np.testing.assert_allclose(estimate.gap(500), estimate.log_p - estimate.bounds[500])


def test_bound_of_all_samples_is_log_p():
    model, guide = off()
    estimate = log_likelihood((model, guide), model.data(3), 60, num_particles=(60, 61))
    assert list(estimate.bounds) == [60]
    np.testing.assert_allclose(estimate.bounds[60], estimate.log_p, rtol=1e-14)


def test_intervals_from_the_standard_error_cover_at_their_level():
    model, guide = off()
    repeats, level = 2000, 0.95
    x = model.data(1).expand(repeats, -1)
    estimate = log_likelihood((model, guide), x, 300, num_particles=())
    z = (estimate.log_p - model.log_p(x).numpy()) / estimate.standard_error
    covered = int((np.abs(z) < stats.norm.isf((1 - level) / 2)).sum())
    assert stats.binomtest(covered, repeats, level).pvalue > LEVEL


def test_mean_has_two_errors():
    model, guide = off()
    x = model.data(400)
    estimate = log_likelihood((model, guide), x, 200)
    log_p = model.log_p(x).numpy()
    assert estimate.mean == pytest.approx(estimate.log_p.mean())
    assert estimate.data_error == pytest.approx(stats.sem(estimate.log_p))
    largest((estimate.mean - log_p.mean()) / estimate.monte_carlo_error, 1)
    assert estimate.monte_carlo_error < estimate.data_error / 10


@pytest.mark.parametrize("kind", ["tensor", "array", "dataset"])
def test_any_holder_of_data(kind):
    model, guide = exact()
    x = model.data(7)
    data = {"tensor": x, "array": x.numpy(), "dataset": TensorDataset(x, torch.arange(7))}[kind]
    estimate = log_likelihood((model, guide), data, 10, max_weights=30)
    np.testing.assert_allclose(estimate.log_p, model.log_p(x).numpy(), atol=1e-10)


def test_batches_and_pieces_give_each_datum_its_own():
    model, guide = off()
    x = model.data(23)
    estimate = log_likelihood((model, guide), x, 4000, max_weights=20_000, max_rows=256)
    largest((estimate.log_p - model.log_p(x).numpy()) / estimate.standard_error, 23)


class Counting(LinearGaussian):
    """Notes how many decoder rows each of its runs has."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = []

    def mean(self, z):
        self.rows.append(z.shape[:-1].numel())
        return super().mean(z)


@pytest.mark.parametrize("compile", [False, True])
def test_bits_are_those_of_the_observed_numbers(compile, unfused):
    """A flipped coin a pixel and a count beside them, whatever the latent."""
    guide = VAE((2, 3), 1).guide

    def pictures(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(torch.full((2, 3), 0.5)).to_event(2), obs=x)
            pyro.sample("count", dist.Poisson(2.0), obs=torch.ones(len(x)))

    estimate = log_likelihood((pictures, guide), torch.ones(4, 2, 3), 2000, compile=compile)
    assert estimate.discrete_dimensions == 7
    poisson = 2.0 - math.log(2.0)
    assert estimate.bits_per_dimension == pytest.approx((6 + poisson / math.log(2.0)) / 7, abs=0.02)


def test_densities_have_no_bits():
    estimate = log_likelihood(exact(), LinearGaussian().data(4), 10)
    assert estimate.discrete_dimensions is estimate.bits_per_dimension is None


LOOK = 5
"""Runs of a model before its draws count: validated, of two particles, two of one, and draws that show the proposal."""


@pytest.mark.parametrize(("num_samples", "max_rows"), [(1, 7), (10, 7), (300, 7), (10, 512), (1000, 512), (6000, 512)])
def test_no_run_has_more_rows_than_asked_for(num_samples, max_rows):
    model = Counting()
    x = torch.randn(10, 3)
    log_likelihood((model, GaussianGuide(model, diagonal=True)), x, num_samples, max_rows=max_rows)
    mixed = 2 if model.rows[0] > 1 else 0  # runs to see whether data are mixed
    *look, proof = model.rows[: LOOK + mixed]
    batch_size = look[0]
    assert max(look) <= 2 * batch_size
    assert max(proof, *model.rows[LOOK + mixed :]) <= max(max_rows, 2 * batch_size)
    assert max(model.rows[LOOK + mixed :]) <= max_rows
    needed = num_samples * len(x)
    assert needed <= sum(model.rows[LOOK + mixed :]) < 1.01 * needed


def test_plates_are_found_once():
    model = Counting()
    log_likelihood((model, GaussianGuide(model)), torch.randn(12, 3), 10, max_weights=30)
    assert model.rows == [3, 6, 3, 3, 2, 3, 3, 48, 30, 30, 30, 30]


def test_held_weights_do_not_grow_with_samples(monkeypatch):
    model, guide = off()
    held = []
    summarise = LogLikelihood.from_log_weights.__func__

    def record(cls, log_weights, particles):
        held.append(log_weights.numel())
        return summarise(cls, log_weights, particles)

    monkeypatch.setattr(LogLikelihood, "from_log_weights", classmethod(record))
    for num_samples in (10, 100, 1000):
        log_likelihood((model, guide), model.data(40), num_samples, max_weights=2000)
    assert max(held) <= 2000
    assert min(held) >= 400


def test_same_seed_same_result_and_the_callers_noise_goes_on():
    model, guide = off()
    x = model.data(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (log_likelihood((model, guide), x, 50, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.log_p, again.log_p)
    assert (first.log_p != other.log_p).all()
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


class TestASeedADatum:
    @pytest.mark.parametrize("proposal", ["guide", "mixture", "auto"])
    def test_it_alone_decides_the_noise(self, proposal):
        """In whatever order and company; and it is what that seed gives to the datum when there is no other."""
        model, guide = narrow()
        x, seeds = model.data(6), [5, 2**63 - 1, 7, 5, 0, 1]
        estimate = log_likelihood((model, guide), x, 200, seed=seeds, proposal=proposal)
        for rows in ([5, 4, 3, 2, 1, 0], [2], [1, 1, 3]):
            again = log_likelihood((model, guide), x[rows], 200, seed=np.array(seeds)[rows], proposal=proposal)
            np.testing.assert_array_equal(again.log_p, estimate.log_p[rows])
            np.testing.assert_array_equal(again.bounds.get(1, []), estimate.bounds[1][rows] if estimate.bounds else [])
        for row in range(6):
            single = log_likelihood((model, guide), x[row : row + 1], 200, seed=seeds[row], proposal=proposal)
            np.testing.assert_array_equal(single.log_p, estimate.log_p[row : row + 1])

    @pytest.mark.parametrize("pair", [off, narrow])
    def test_it_alone_decides_what_reaches_a_tolerance(self, pair):
        model, guide = pair()
        x, seeds = model.data(20), [5, 2**63 - 1, 7, 5, 0, *range(1, 16)]
        estimate = log_likelihood((model, guide), x, tolerance=0.02, seed=seeds)
        for rows in (np.arange(20)[::-1].copy(), [2], [1, 1, 3, 12]):
            again = log_likelihood((model, guide), x[rows], tolerance=0.02, seed=np.array(seeds)[rows])
            np.testing.assert_array_equal(again.log_p, estimate.log_p[rows])
            np.testing.assert_array_equal(again.effort.evaluations, estimate.effort.evaluations[rows])

    def test_equal_seeds_are_equal_noise_and_others_other(self):
        model, guide = off()
        x = model.data(1).expand(3, -1)
        one, same, other = log_likelihood((model, guide), x, 50, seed=[3, 3, 4]).log_p
        assert one == same != other

    def test_estimates_are_those_of_the_closed_form(self):
        model, guide = off()
        x = model.data(300)
        estimate = log_likelihood((model, guide), x, 500, seed=range(300))
        z = (estimate.log_p - model.log_p(x).numpy()) / estimate.standard_error
        largest(z.mean() * math.sqrt(300), 1)
        assert 0.7 < z.std() < 1.4

    def test_recorded_they_are_the_same(self, unfused):
        model, guide = off()
        x = model.data(4)
        eager, fused = (log_likelihood((model, guide), x, 50, seed=range(4), compile=compile) for compile in (False, True))
        np.testing.assert_allclose(fused.log_p, eager.log_p)

    def test_as_many_as_data(self):
        model, guide = exact()
        with refused("seeds", 2, 3):
            log_likelihood((model, guide), model.data(3), 50, seed=[1, 2])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda():
    vae = VAE((4, 4), latent_dim=2).cuda()
    x = torch.bernoulli(torch.full((5, 4, 4), 0.3))
    before, cpu_before = torch.cuda.get_rng_state(), torch.get_rng_state()
    first, again = (log_likelihood(vae, x, 2000, device="cuda") for _ in "ab")
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), cpu_before)
    np.testing.assert_array_equal(first.log_p, again.log_p)
    there = log_likelihood(vae, x.cuda(), 2000)
    np.testing.assert_array_equal(first.log_p, there.log_p)
    vae.cpu()
    here = log_likelihood(vae, x, 2000)
    largest((here.log_p - there.log_p) / np.hypot(here.standard_error, there.standard_error), 5)


def test_modules_are_evaluated_without_dropout_and_left_in_their_modes():
    vae = VAE((4, 4), latent_dim=2)
    vae.model.decoder = nn.Sequential(vae.model.decoder, nn.Dropout(0.5))
    vae.guide.requires_grad_(True)
    x = torch.bernoulli(torch.full((5, 4, 4), 0.3))
    vae.eval()
    first = log_likelihood(vae, x, 20)
    vae.train()
    vae.guide.eval()
    again = log_likelihood(vae, x, 20)
    np.testing.assert_array_equal(first.log_p, again.log_p)
    assert all(module.training for module in vae.model.modules())
    assert not any(module.training for module in vae.guide.modules())


handlers = {
    "poutine.mask": lambda module: poutine.mask(module, mask=True),
    "partial": partial,
    "partial method": lambda module: partial(module.forward),
    "handlers and partials": lambda module: poutine.block(partial(poutine.mask(module, mask=True)), hide=["nothing"]),
}


@pytest.mark.parametrize("wrap", handlers.values(), ids=handlers.keys())
def test_modules_under_handlers_are_evaluated_without_dropout_too(wrap):
    vae = VAE((4, 4), latent_dim=2)
    vae.model.decoder = nn.Sequential(vae.model.decoder, nn.Dropout(0.5))
    x = torch.bernoulli(torch.full((5, 4, 4), 0.3))
    plain = log_likelihood(vae, x, 20)
    wrapped = log_likelihood((wrap(vae.model), wrap(vae.guide)), x, 20)
    np.testing.assert_array_equal(wrapped.log_p, plain.log_p)
    assert all(module.training for module in vae.model.modules())


def rejecting(threshold: float):
    """z ~ U(0, 1), thrown away below a threshold: p(x) = (1 - threshold) N(x; 0, 1)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0))
            pyro.factor("kept", torch.where(z < threshold, -math.inf, 0.0))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(0.0, 1.0))

    return model, guide


def test_a_weight_of_zero_is_a_weight():
    x = torch.randn(50)
    estimate = log_likelihood(rejecting(0.3), x, 1000)
    log_p = dist.Normal(0.0, 1.0).log_prob(x).numpy() + math.log(0.7)
    largest((estimate.log_p - log_p) / estimate.standard_error, 50)
    np.testing.assert_allclose(estimate.effective_sample_size, 1000 * np.exp(estimate.log_p - log_p) * 0.7)
    assert (estimate.bounds[1] == -math.inf).all()
    assert (estimate.gap(1) == math.inf).all()


def test_no_weight_at_all_gives_minus_infinity_in_silence():
    estimate = log_likelihood(rejecting(2.0), torch.randn(3), 100)
    assert (estimate.log_p == -math.inf).all()
    assert (estimate.effective_sample_size == 0).all()
    assert np.isnan(estimate.standard_error).all()
    assert np.isnan(estimate.k_hat).all()
    assert estimate.mean == -math.inf
    assert math.isnan(estimate.data_error)
    assert "-inf" in str(estimate)


def test_not_a_number_is_an_error_that_names_the_site():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(torch.where(z > 2, math.nan, z), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    before = torch.get_rng_state()
    with refused("'x'", "model", "NaN"):
        log_likelihood((model, guide), torch.zeros(3), 1000)
    assert torch.equal(torch.get_rng_state(), before)


def test_subsampled_plates_are_refused():
    model, guide = exact()
    pair = Subsampled(model, guide, 2)
    with refused("'data'", 2, 5, 'pyro.plate("data", len(x))'):
        log_likelihood(pair, model.data(5), 10)
    assert pair.training


def test_scaled_densities_are_refused():
    model, guide = exact()
    with refused("'z'", "poutine.scale", "log p(x)"):
        log_likelihood((poutine.scale(model, 0.5), poutine.scale(guide, 0.5)), model.data(3), 10)


@pytest.mark.parametrize(
    "arguments", [{"num_samples": 0}, {"max_rows": 0}, {"max_weights": -1}, {"num_particles": (1, 0)}], ids=str
)
def test_numbers_below_one_are_refused(arguments):
    model, guide = exact()
    with refused(*arguments, 1):
        log_likelihood((model, guide), model.data(2), **arguments)


@pytest.mark.parametrize("proposal", ["mixture", "auto"])
def test_a_proposal_beside_a_tolerance_is_refused(proposal):
    model, guide = exact()
    with refused("proposal", repr(proposal), "tolerance", 0.1, '"guide"'):
        log_likelihood((model, guide), model.data(2), proposal=proposal, tolerance=0.1)


def test_a_warning_where_the_proposal_is_too_narrow():
    model, guide = narrow()
    with warned("k-hat", "0.70", category=ImportanceSamplingWarning):
        estimate = log_likelihood((model, guide), model.data(20), 5000)
    assert estimate.share_untrusted > 0.5
    assert "Warning: Pareto k-hat" in str(estimate)


def test_no_warning_where_the_proposal_is_good():
    model, guide = off()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = log_likelihood((model, guide), model.data(50), 5000)
    assert estimate.share_untrusted == 0.0
    assert "Warning" not in str(estimate)


def test_progress_is_shown_unless_it_is_not_wanted(capsys, monkeypatch):
    monkeypatch.setattr("pyrovae.runtime.progress.DELAY", 0.0)
    model, guide = exact()
    log_likelihood((model, guide), model.data(2), 10, progress=False)
    assert capsys.readouterr().err == ""
    log_likelihood((model, guide), model.data(2), 10)
    assert "100%" in capsys.readouterr().err


def test_what_rounding_does_is_measured():
    vae = VAE((4, 4), latent_dim=2).float()
    x = torch.bernoulli(torch.full((20, 4, 4), 0.3)).float()
    run = partial(log_likelihood, vae, x, 100)
    exact, rounded = run(), run(precision="bfloat16")
    assert exact.rounding is None
    mean, size = rounded.rounding
    np.testing.assert_allclose(rounded.log_p - exact.log_p, mean, atol=10 * size)
    assert 1e-6 < abs(mean) <= size < 1e-1
    assert "error of rounding" in str(rounded)
    assert "error of rounding" not in str(exact)


offsets = [(2, 0.0, 1.5), (2, 0.15, 1.0), (10, 0.1, 1.0), (10, 0.0, 1.2)]


@pytest.mark.parametrize(("latent_dim", "shift", "widen"), slow_but(lambda *which: which in offsets[1::2], offsets))
def test_its_interval_covers(latent_dim, shift, widen):
    """Of 1,000 data, with k-hats below 0.5: 93 to 97% are what an interval of 95% has with probability 0.996."""
    model = LinearGaussian(data_dim=latent_dim + 3, latent_dim=latent_dim)
    x = model.data(1000)
    found = log_likelihood((model, GaussianGuide(model, shift=shift, widen=widen)), x, 2000)
    assert np.nanmedian(found.k_hat) < 0.5
    low, high = found.interval()
    exact = model.log_p(x).numpy()
    assert 0.93 < ((low <= exact) & (exact <= high)).mean() < 0.97


def test_where_its_interval_does_not_cover_k_hat_says_so():
    model, guide = narrow()
    x = model.data(500)
    found = log_likelihood((model, guide), x, 2000)
    low, high = found.interval()
    exact = model.log_p(x).numpy()
    assert ((low <= exact) & (exact <= high)).mean() < 0.9
    assert found.warning
    with refused("level", 95, 0.95):
        found.interval(95)
