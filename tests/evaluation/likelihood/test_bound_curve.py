"""Bounds from one set of weights, against closed forms and against the objectives themselves."""

import math
import warnings
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from checks import assert_mean, measure, refused, warned
from programs import GaussianGuide, LinearGaussian, functions, gaussian_kl, weight_variance
from scipy import stats
from torch import nn
from torch.utils.data import TensorDataset

from pyrovae.evaluation import BoundCurve, ImportanceSamplingWarning, LogLikelihood, bound_curve, log_likelihood
from pyrovae.evaluation.likelihood.bound_curve import BOUNDS
from pyrovae.objectives import CIWAE, CUBO, ELBO, EUBO, IWAE, MIWAE, PIWAE, Renyi, ThermodynamicELBO
from pyrovae.runtime.seeds import seed_of

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore::pyrovae.evaluation.ImportanceSamplingWarning"),
]


def exact():
    model = LinearGaussian()
    return model, GaussianGuide(model)


def off():
    model = LinearGaussian()
    return model, GaussianGuide(model, shift=0.1, widen=1.15, diagonal=True)


def of(curve, name, particles):
    """The values of a bound, shape ``(N,)``."""
    return torch.from_numpy(curve.values[curve.names.index(name), curve.num_particles.index(particles)])


every = {
    **BOUNDS,
    "CIWAE": partial(CIWAE, 0.3),
    "MIWAE": lambda particles: MIWAE(3, particles),
    "TVO": ThermodynamicELBO,
    "CUBO(1.5)": partial(CUBO, 1.5),
}


class Weights:
    """A bound that keeps the weights it is handed, and is the first of them."""

    sign = 1

    def __init__(self, num_particles):
        self.num_particles, self.given = num_particles, []

    def value(self, log_weights):
        self.given.append(log_weights)
        return log_weights[0]


class TestValues:
    def test_at_the_exact_posterior_all_are_log_p(self):
        model, guide = exact()
        x = model.data(5)
        curve = bound_curve((model, guide), x, (1, 4, 10), every)
        assert curve.values.shape == curve.standard_error.shape == (len(every), 3, 5)
        np.testing.assert_allclose(curve.values, np.broadcast_to(model.log_p(x), curve.values.shape), atol=1e-10)
        np.testing.assert_allclose(curve.gap_mean, 0, atol=1e-10)

    @pytest.mark.parametrize("make", every.values(), ids=every.keys())
    def test_of_one_group_it_is_what_the_objective_says(self, make):
        model, guide = off()
        x, objective = model.data(4), make(5)
        curve = bound_curve((model, guide), x, (5,), {"it": make}, num_samples=objective.num_particles, seed=9)
        with torch.no_grad():
            torch.testing.assert_close(of(curve, "it", 5), measure(objective, model, guide, x, seed=seed_of(9, 0)).bound)

    def test_disjoint_groups_are_averaged_and_what_is_left_over_is_left_out(self):
        model, guide = off()
        seen, bound = Weights(23), CIWAE(0.3, 4)
        curve = bound_curve(
            (model, guide), model.data(3), (4,), {"seen": lambda _: seen, "CIWAE": partial(CIWAE, 0.3)}, num_samples=23
        )
        (weights,) = seen.given
        groups = torch.stack([bound.value(weights[4 * g : 4 * g + 4]) for g in range(5)])
        torch.testing.assert_close(of(curve, "CIWAE", 4), groups.mean(0))
        errors = torch.from_numpy(curve.standard_error[1, 0])
        torch.testing.assert_close(errors, groups.std(0) / math.sqrt(5))
        assert np.isnan(curve.standard_error[0]).all()

    def test_the_draws_are_those_of_log_likelihood(self):
        model, guide = off()
        x = model.data(7)
        estimate = log_likelihood((model, guide), x, 100, num_particles=(1, 5, 50), seed=2, max_rows=12, max_weights=400)
        curve = bound_curve((model, guide), x, (1, 5, 50), num_samples=100, seed=2, max_rows=12, max_weights=400)
        np.testing.assert_array_equal(curve.log_likelihood.log_p, estimate.log_p)
        np.testing.assert_array_equal(curve.log_likelihood.k_hat, estimate.k_hat)
        for count, bound in estimate.bounds.items():
            np.testing.assert_allclose(of(curve, "IWAE", count), bound, rtol=1e-13)
            np.testing.assert_allclose(of(curve, "ELBO", count), estimate.bounds[1], rtol=1e-13)

    def test_to_a_tolerance_the_line_is_that_of_log_likelihood_and_the_bounds_are_as_ever(self):
        model, guide = off()
        x = model.data(7)
        run = partial(bound_curve, (model, guide), x, (1, 5), num_samples=40, seed=2)
        close = run(tolerance=0.05, level=0.9, budget=400_000)
        expected = log_likelihood((model, guide), x, tolerance=0.05, level=0.9, budget=400_000, num_particles=(), seed=2)
        np.testing.assert_array_equal(close.log_likelihood.log_p, expected.log_p)
        np.testing.assert_array_equal(close.log_likelihood.interval(), expected.interval())
        assert close.log_likelihood.effort.share_met == 1.0
        assert close.log_likelihood.num_samples == 40
        np.testing.assert_array_equal(close.values, run().values)
        np.testing.assert_array_equal(close.gap, expected.log_p - close.values)
        assert "by 40 draws each" in str(close).splitlines()[0]
        assert str(close).splitlines()[1].endswith("from the draws, to ±0.05 at 90%")

    def test_by_default_each_bound_has_two_groups(self):
        model, guide = off()
        curve = bound_curve((model, guide), model.data(3), (1, 6), {"IWAE": IWAE, "MIWAE": every["MIWAE"]})
        assert curve.log_likelihood.num_samples == 2 * 3 * 6
        assert np.isfinite(curve.standard_error).all()


@pytest.fixture(scope="module")
def found():
    """A model and its guide, data, and every bound of them."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    model, guide = off()
    x = model.data(400)
    curve = bound_curve((model, guide), x, (1, 5, 50, 200), every)
    torch.set_default_dtype(dtype)
    return model, guide, x, curve


class TestClosedForms:
    """Of a linear-Gaussian model with a guide that is a little off."""

    def test_elbo_is_below_by_the_divergence_from_the_guide(self, found):
        model, guide, x, curve = found
        divergence = gaussian_kl(guide.moments(x), model.posterior(x))
        for particles in curve.num_particles:
            gaps = of(curve, "ELBO", particles) - model.log_p(x) + divergence
            assert_mean(gaps, 0.0, detects=0.05 * divergence.mean().item())

    def test_eubo_is_above_by_the_divergence_from_the_posterior(self, found):
        model, guide, x, curve = found
        divergence = gaussian_kl(model.posterior(x), guide.moments(x))
        gaps = of(curve, "EUBO", 200) - model.log_p(x) - divergence
        assert abs(gaps.mean()) < 0.04 * divergence.mean()

    def test_cubo_is_above_by_half_the_logarithm_of_the_second_moment(self, found):
        model, guide, x, curve = found
        expected = weight_variance(guide.moments(x), model.posterior(x)).log1p() / 2
        gaps = of(curve, "CUBO(2)", 200) - model.log_p(x) - expected
        assert abs(gaps.mean()) < 0.04 * expected.mean()

    def test_order(self, found):
        curve = found[-1]
        at_50 = [of(curve, name, 50).mean() for name in ("ELBO", "CIWAE", "IWAE", "CUBO(1.5)", "CUBO(2)")]
        assert at_50 == sorted(at_50)
        level = curve.log_likelihood.mean
        assert at_50[2] < level < at_50[3]
        assert curve.is_upper == tuple(name in ("EUBO", "CUBO(2)", "CUBO(1.5)") for name in curve.names)

    def test_more_particles_raise_every_mean_but_the_elbos(self, found):
        curve = found[-1]
        for name, means in zip(curve.names, curve.mean, strict=True):
            if name == "ELBO":
                np.testing.assert_allclose(means, means[0], rtol=1e-12)
            else:
                assert (np.diff(means) > 0).all(), name

    def test_at_one_particle_all_are_the_elbo(self, found):
        np.testing.assert_allclose(found[-1].mean[:, 0], found[-1].mean[0, 0], atol=0.01)


class TestErrorsOfTheMean:
    def test_formulas(self):
        model, guide = off()
        curve = bound_curve((model, guide), model.data(6), (2, 8), num_samples=40)
        np.testing.assert_allclose(curve.mean, curve.values.mean(-1))
        np.testing.assert_allclose(curve.data_error, stats.sem(curve.values, -1))
        np.testing.assert_allclose(curve.monte_carlo_error, np.sqrt((curve.standard_error**2).sum(-1)) / 6)
        gaps = curve.log_likelihood.log_p - curve.values
        np.testing.assert_allclose(curve.gap, gaps)
        np.testing.assert_allclose(curve.gap_mean, gaps.mean(-1))
        np.testing.assert_allclose(curve.gap_error, stats.sem(gaps, -1))

    def test_the_gap_is_known_better_than_the_bound(self):
        model, guide = off()
        curve = bound_curve((model, guide), model.data(100), (50,), {"IWAE": IWAE})
        assert curve.gap_error < 0.02 * curve.data_error

    def test_monte_carlo_errors_are_those_of_repetitions(self):
        model, guide = off()
        x = model.data(1).expand(1500, -1)
        curve = bound_curve((model, guide), x, (5,), {"IWAE": IWAE, "EUBO": EUBO}, num_samples=100)
        spread = curve.values[:, 0].std(-1, ddof=1)
        np.testing.assert_allclose(np.sqrt((curve.standard_error[:, 0] ** 2).mean(-1)), spread, rtol=0.1)

    def test_a_single_datum_has_no_error_over_data(self):
        model, guide = off()
        curve = bound_curve((model, guide), model.data(1), (2,))
        assert np.isnan(curve.data_error).all()
        assert np.isfinite(curve.monte_carlo_error).all()
        assert "nan" in str(curve)


class TestCall:
    @pytest.mark.parametrize("kind", ["tensor", "array", "dataset"])
    def test_any_holder_of_data(self, kind):
        model, guide = exact()
        x = model.data(7)
        data = {"tensor": x, "array": x.numpy(), "dataset": TensorDataset(x, torch.arange(7))}[kind]
        curve = bound_curve((model, guide), data, (3,), num_samples=10, max_weights=30)
        np.testing.assert_allclose(curve.values[0, 0], model.log_p(x), atol=1e-10)

    def test_plain_functions_recorded_or_not(self, monkeypatch, unfused):
        recorded = []
        monkeypatch.setattr("pyrovae.evaluation.likelihood.draws.fuse", lambda run, _: recorded.append(run) or run)
        x = LinearGaussian().data(5)
        curve = partial(bound_curve, functions(*off()), x, (2, 10), num_samples=30, max_rows=20, max_weights=60)
        eager, fused = curve(compile=False), curve(compile=True)
        np.testing.assert_allclose(fused.values, eager.values, rtol=0, atol=1e-10)
        assert len(recorded) == 1

    def test_held_weights_do_not_grow_with_samples(self):
        model, guide = off()
        for num_samples in (10, 100, 1000):
            seen = Weights(10)
            makes = {"seen": lambda _, seen=seen: seen}
            bound_curve((model, guide), model.data(40), (10,), makes, num_samples=num_samples, max_weights=2000)
            assert max(weights.numel() for weights in seen.given) <= 2000

    def test_the_callers_noise_goes_on(self):
        model, guide = off()
        x, before = model.data(3), torch.get_rng_state()
        first, again, other = (bound_curve((model, guide), x, (5,), seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        np.testing.assert_array_equal(first.values, again.values)
        assert (first.values != other.values).all()

    def test_modules_are_evaluated_without_dropout(self):
        class Dropping(LinearGaussian):
            def mean(self, z):
                return nn.functional.dropout(super().mean(z), 0.5, self.training)

        model, guide = off()
        x = model.data(3)
        dropping = Dropping()
        curves = [bound_curve((program, guide), x, (5,)) for program in (model, dropping)]
        np.testing.assert_array_equal(curves[0].values, curves[1].values)
        assert dropping.training

    def test_a_warning_where_the_proposal_is_too_narrow(self):
        model = LinearGaussian()
        with warned("k-hat", "0.70", category=ImportanceSamplingWarning) as caught:
            curve = bound_curve((model, GaussianGuide(model, widen=0.45)), model.data(20), (2500,), {"IWAE": IWAE})
        assert caught[0].filename == __file__
        assert "Warning: Pareto k-hat" in str(curve)

    def test_one_warning_where_the_tolerance_is_not_met(self):
        model, guide = off()
        with warned("tolerance", "0.001", "100.0%", category=ImportanceSamplingWarning) as caught:
            curve = bound_curve((model, guide), model.data(3), (1,), {"IWAE": IWAE}, tolerance=1e-3, budget=2000)
        assert [each.filename for each in caught] == [__file__]
        assert "Warning: the tolerance" in str(curve)

    def test_no_warning_where_it_is_good(self):
        model, guide = off()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            curve = bound_curve((model, guide), model.data(20), (1000,), {"IWAE": IWAE})
        assert "Warning" not in str(curve)

    def test_progress_is_shown_unless_it_is_not_wanted(self, capsys, monkeypatch):
        monkeypatch.setattr("pyrovae.runtime.progress.DELAY", 0.0)
        model, guide = exact()
        bound_curve((model, guide), model.data(2), (1,), progress=False)
        assert capsys.readouterr().err == ""
        bound_curve((model, guide), model.data(2), (1,))
        assert "100%" in capsys.readouterr().err


def made() -> BoundCurve:
    """Of two bounds, three K and two data."""
    values = np.arange(12.0).reshape(2, 3, 2)
    log_p = LogLikelihood.from_log_weights(torch.randn(100, 2) - 90)
    groups = np.full((2, 3), 2)
    return BoundCurve(("IWAE", "CUBO(2)"), (1, 5, 5000), values, 0.1 * values, groups, (False, True), log_p)


def test_rows():
    curve = made()
    rows = curve.rows()
    assert [(row["bound"], row["particles"], row["is_upper"]) for row in rows[2:4]] == [
        ("IWAE", 5000, False),
        ("CUBO(2)", 1, True),
    ]
    assert [row["mean"] for row in rows] == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]
    for column in ("data_error", "monte_carlo_error", "gap_mean", "gap_error"):
        np.testing.assert_array_equal([row[column] for row in rows], getattr(curve, column).ravel())


def test_table():
    curve = made()
    lines = str(curve).splitlines()
    assert lines[0] == "bounds on log p(x) of 2 data by 100 draws each, in nats"
    assert lines[1].startswith(f"log p(x) is {curve.log_likelihood.mean:.4f} ± ")
    header, *rows = lines[3:6]
    assert [cell.strip() for cell in header.split("K = ")] == ["mean ± from the data", "1", "5", "5,000"]
    assert rows[1].split("  ")[1] == "CUBO(2)"
    assert [cell.strip() for cell in rows[1].split("  ") if "±" in cell] == ["6.50 ± 0.50", "8.50 ± 0.50", "10.50 ± 0.50"]
    assert lines[7].startswith("  log p(x) - bound")
    assert f"{curve.gap_mean[1, 2]:.4f} ± {curve.gap_error[1, 2]:.4f}" in lines[9]
    assert len({len(line) for line in lines[3:6]}) == 1


class TestErrors:
    @pytest.mark.parametrize("particles", [(), (0,), (5, -1)], ids=str)
    def test_numbers_of_particles(self, particles):
        with refused("particles", particles, 1):
            bound_curve(exact(), torch.randn(2, 3), particles)

    def test_no_bound(self):
        with refused("bounds", '{"IWAE": pyrovae.IWAE}'):
            bound_curve(exact(), torch.randn(2, 3), bounds={})

    @pytest.mark.parametrize(
        "make", [lambda K: PIWAE(2, K), lambda _: "IWAE", lambda _: IWAE], ids=["PIWAE", "text", "class"]
    )
    def test_what_is_no_function_of_weights(self, make):
        with refused("'it'", "partial(pyrovae.objectives.CIWAE, 0.5)"):
            bound_curve(exact(), torch.randn(2, 3), (1,), {"it": make})

    def test_too_few_draws(self):
        with refused("'MIWAE'", 15, "num_samples", 10):
            bound_curve(exact(), torch.randn(2, 3), (1, 5), {"IWAE": IWAE, "MIWAE": every["MIWAE"]}, num_samples=10)

    @pytest.mark.parametrize("limits", [{"max_rows": 0}, {"max_weights": -1}], ids=str)
    def test_limits_below_one(self, limits):
        with refused(*limits, *limits.values(), 1):
            bound_curve(exact(), torch.randn(2, 3), (1,), **limits)

    def test_a_tolerance_that_is_none(self):
        with refused("tolerance", -0.1):
            bound_curve(exact(), torch.randn(2, 3), (1,), tolerance=-0.1)

    def test_a_bound_that_is_not_a_number(self):
        class Wrong(Weights):
            def value(self, log_weights):
                return torch.where(torch.arange(log_weights.shape[1]) == 0, math.nan, log_weights[0])

        with refused("'it'", 3, "NaN", 1, 2):
            bound_curve(exact(), torch.randn(2, 3), (3,), {"it": Wrong}, num_samples=3)


@pytest.mark.parametrize("make", [ELBO, partial(Renyi, 0.5), IWAE, partial(CUBO, 2.0)])
def test_a_weight_of_zero_is_a_weight(make):
    class Rejecting(LinearGaussian):
        def observe(self, z, x):
            pyro.factor("kept", torch.where(z[..., 0] < -0.5, -math.inf, 0.0))
            return super().observe(z, x)

    model = Rejecting()
    curve = bound_curve((model, GaussianGuide(LinearGaussian())), model.data(4), (1, 20), {"it": make})
    assert (curve.values[0, 0] == -math.inf).any()
    assert not np.isnan(curve.values).any()
    assert "inf" in str(curve)
