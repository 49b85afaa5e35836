"""What an estimate says of itself, on paper and on disk."""

import math
import warnings
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from checks import assert_says, refused

from pyrovae.evaluation import LogLikelihood
from pyrovae.evaluation.estimates.effort import PROPOSALS, Effort
from pyrovae.evaluation.estimates.netcdf import COLUMNS, EFFORT, GROUP, to_dataset


def estimate(count: int = 6, num_samples: int = 400, particles: tuple[int, ...] = (1, 5, 50)) -> LogLikelihood:
    log_weights = torch.randn(num_samples, count, dtype=torch.float64) - 90
    return LogLikelihood.from_log_weights(log_weights, particles)


def to_a_tolerance(particles: tuple[int, ...] = (1, 5)) -> LogLikelihood:
    """Estimates of six data, each by draws of its own number."""
    effort = Effort(
        tolerance=0.1,
        level=0.9,
        proposal=np.array(["guide", "mixture", "fitted", "annealed", "fitted", "guide"]),
        draws=np.array([1000, 5000, 500, 64, 5000, 16_000]),
        evaluations=np.array([1000, 6000, 2844, 70_000, 12_000, 17_000]),
        trusted=np.array([True, True, True, True, False, True]),
        met=np.array([True, False, True, True, False, True]),
    )
    return replace(estimate(particles=particles), effort=effort)


def assert_same(one: LogLikelihood, other: LogLikelihood) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(other, name).dtype == np.float64
    assert one.num_samples == other.num_samples
    assert list(one.bounds) == list(other.bounds)
    for count, bound in one.bounds.items():
        np.testing.assert_array_equal(bound, other.bounds[count])
    assert (one.effort is None) == (other.effort is None)
    if one.effort is not None:
        assert (one.effort.tolerance, one.effort.level) == (other.effort.tolerance, other.effort.level)
        for name in ("proposal", *EFFORT):
            np.testing.assert_array_equal(getattr(one.effort, name), getattr(other.effort, name))
            assert getattr(one.effort, name).dtype.kind == getattr(other.effort, name).dtype.kind


@pytest.mark.parametrize("particles", [(1, 5, 50), (7,), ()])
def test_netcdf_round_trip(tmp_path, particles):
    path = tmp_path / "log_likelihood.nc"
    before = replace(estimate(particles=particles), k_hat=np.array([0.3, math.nan, math.inf, -0.2, 0.7, 1.2]))
    before.to_netcdf(path)
    assert_same(before, LogLikelihood.from_netcdf(path))
    assert type(LogLikelihood.from_netcdf(path).num_samples) is int


@pytest.mark.parametrize("dimensions", [None, 784])
def test_the_number_of_discrete_dimensions_is_kept(tmp_path, dimensions):
    before = replace(estimate(), discrete_dimensions=dimensions)
    before.to_netcdf(tmp_path / "log_likelihood.nc")
    assert LogLikelihood.from_netcdf(tmp_path / "log_likelihood.nc").discrete_dimensions == dimensions
    assert LogLikelihood.concatenate([before, before]).discrete_dimensions == dimensions


def test_bits_per_dimension():
    assert estimate().bits_per_dimension is None
    assert "bits" not in str(estimate())
    fair = replace(estimate(count=1), log_p=np.array([-8 * math.log(2.0)]), discrete_dimensions=8)
    assert fair.bits_per_dimension == pytest.approx(1.0)
    assert "  bits per dimension          1.0000\n" in str(fair)


def test_netcdf_is_overwritten(tmp_path):
    estimate(9).to_netcdf(tmp_path / "it.nc")
    second = estimate(3)
    second.to_netcdf(str(tmp_path / "it.nc"))
    assert_same(second, LogLikelihood.from_netcdf(tmp_path / "it.nc"))


@pytest.mark.parametrize(
    "before", [estimate(), to_a_tolerance(), to_a_tolerance(())], ids=["draws", "tolerance", "no bound"]
)
def test_arviz_reads_and_writes_it(before, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\nArviZ is undergoing", FutureWarning)
        import arviz
    tree = before.to_arviz()
    np.testing.assert_array_equal(tree[GROUP]["log_p"].values, before.log_p)
    for particles, bound in before.bounds.items():
        np.testing.assert_array_equal(tree[GROUP]["bound"].sel(particles=particles).values, bound)
    tree.to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    assert_same(before, LogLikelihood.from_netcdf(tmp_path / "theirs.nc"))
    before.to_netcdf(tmp_path / "ours.nc")
    read = arviz.from_netcdf(tmp_path / "ours.nc", engine="h5netcdf")
    np.testing.assert_array_equal(read[GROUP]["k_hat"].values, before.k_hat)
    assert_same(before, LogLikelihood.from_netcdf(tmp_path / "ours.nc"))


def test_the_proposals_of_a_file_are_named_in_it():
    places = to_dataset(to_a_tolerance())["proposal"]
    assert places.attrs["names"].split(", ") == [*PROPOSALS]
    assert places.values.tolist() == [0, 1, 2, 3, 2, 0]


def test_to_a_tolerance_each_datum_has_the_interval_and_the_trust_of_its_own_draws():
    found = to_a_tolerance()
    alone = replace(found, effort=None, num_samples=64)
    for mine, of_chains in zip(found.interval(0.9), alone.interval(0.9), strict=True):
        assert mine[3] == of_chains[3]
        assert (mine[[0, 2]] != of_chains[[0, 2]]).all()
    assert found.trusted.tolist() == [True, True, True, True, False, True]
    assert found.share_untrusted == pytest.approx(1 / 6)
    assert found.effort.share_met == pytest.approx(4 / 6)
    assert "33.3% of the data" in found.warning
    assert not found.worst(1)["met"].item()


def test_concatenation_keeps_every_datum():
    log_weights = torch.randn(100, 7, dtype=torch.float64)
    whole = LogLikelihood.from_log_weights(log_weights, (1, 10))
    parts = [LogLikelihood.from_log_weights(part, (1, 10)) for part in log_weights.split(3, 1)]
    joined = LogLikelihood.concatenate(parts)
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name))
    np.testing.assert_allclose(joined.bounds[10], whole.bounds[10])
    assert joined.num_samples == 100


def test_table():
    text = str(estimate())
    assert text.splitlines()[0] == "log p(x) of 6 data by 400 draws each, in nats"
    for name in ("± from the data", "± from the draws", "ELBO", "IWAE, 50 particles", "5%", "Pareto k-hat", "above 0.62"):
        assert name in text
    assert max(map(len, text.splitlines())) <= 79


def test_table_aligns_its_numbers():
    lines = [line for line in str(estimate()).splitlines() if line.startswith(("  mean", "  ±", "  ELBO", "  IWAE"))]
    assert {line.index(".") for line in lines} == {31}


def test_table_says_of_how_many_data_a_draw_outweighs_all_others():
    log_weights = torch.zeros(50, 3, dtype=torch.float64)
    log_weights[0, 0] = 1000.0
    text = str(LogLikelihood.from_log_weights(log_weights))
    assert "nan" not in text.partition("Pareto smoothed")[0]
    assert_says(text, "bias-corrected", "unknown", 1)


def test_table_of_one_datum_and_few_draws():
    text = str(estimate(1, 10, ()))
    assert "nan" in text
    assert "no k-hat could be fitted for 1 data" in text
    assert "bound" not in text


@pytest.mark.parametrize(("num_samples", "expected"), [(5000, 0.7), (100, 0.5), (10, 0.0), (1, -math.inf)])
def test_threshold(num_samples, expected):
    assert estimate(num_samples=num_samples, particles=()).threshold == expected


def test_share_untrusted():
    """Above the threshold, or without a k-hat where weights differ."""
    k_hats = np.array([0.1, 0.65, 0.61, math.nan, math.inf, -1.0])
    assert replace(estimate(), k_hat=k_hats).share_untrusted == pytest.approx(3 / 6)


@pytest.mark.parametrize(("bad", "warned"), [(0, False), (5, False), (6, True), (50, True)])
def test_one_datum_in_twenty_passes_without_a_warning(bad, warned):
    k_hat = np.full(100, 0.2)
    k_hat[:bad] = 0.8
    warning = replace(estimate(100), k_hat=k_hat).warning
    assert (warning is not None) == warned
    assert not warned or f"{bad / 100:.1%} of the data" in warning


def test_errors_of_the_mean():
    it = replace(estimate(2), log_p=np.array([-1.0, -3.0]), standard_error=np.array([0.3, 0.4]))
    assert it.mean == -2.0
    assert it.data_error == pytest.approx(1.0)
    assert it.monte_carlo_error == pytest.approx(0.25)


def test_a_missing_bound_is_an_error():
    with refused(3, [1, 5, 50], "num_particles=(3, ...)"):
        estimate().gap(3)


def test_frozen():
    with pytest.raises(FrozenInstanceError):
        estimate().num_samples = 3


def test_how_it_was_made_is_in_the_file(tmp_path):
    estimate = LogLikelihood.from_log_weights(torch.randn(100, 5, dtype=torch.float64), ())
    made = replace(estimate, defensive=np.array([True, False, True, False, False]), rounding=(-1e-3, 2e-3))
    made.to_netcdf(tmp_path / "made.nc")
    read = LogLikelihood.from_netcdf(tmp_path / "made.nc")
    np.testing.assert_array_equal(read.defensive, made.defensive)
    assert read.rounding == made.rounding
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))


def test_files_of_before_the_smoothed_estimates_are_read(tmp_path):
    estimate = LogLikelihood.from_log_weights(torch.randn(100, 5, dtype=torch.float64), (1,))
    dataset = to_dataset(estimate).drop_vars(["smoothed", "jackknife", "jackknife_error"])
    dataset.to_netcdf(tmp_path / "old.nc", group="importance_sampling", engine="h5netcdf")
    read = LogLikelihood.from_netcdf(tmp_path / "old.nc")
    np.testing.assert_array_equal(read.log_p, estimate.log_p)
    assert np.isnan(read.smoothed).all()
    assert read.defensive is None
