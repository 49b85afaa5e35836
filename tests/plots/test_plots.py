"""Each figure holds the numbers it was handed, on the axes it was handed."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from checks import refused
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from pyrovae import plots
from pyrovae.evaluation import (
    BoundCurve,
    Comparison,
    Interpolation,
    KLDecomposition,
    LatentMap,
    LogLikelihood,
    RateDistortion,
    Traversal,
)
from pyrovae.plots.palette import CLASSES

metrics = [
    {
        "epoch": epoch,
        "train_bound": -100 - 500 / epoch**2,
        "validation_bound": -101 - 500 / epoch**2,
        "train_reconstruction": -80 - 500 / epoch**2,
        "train_kl": 20.0,
    }
    for epoch in range(1, 41)
]
estimate = LogLikelihood.from_log_weights(torch.randn(1000, 30) - 50, (1, 10, 100))
pictures = torch.rand(7, 5, 4)


def curve_of(gaps: dict[str, list[float]], particles: tuple[int, ...]) -> BoundCurve:
    """Bounds so far below the estimate, on the average over data."""
    spread = np.linspace(-0.1, 0.1, 30)
    values = estimate.log_p - np.array([*gaps.values()])[..., None] + spread
    upper = tuple(min(row) < 0 for row in gaps.values())
    groups = np.ones(values.shape[:2], dtype=int)
    return BoundCurve(tuple(gaps), particles, values, np.zeros_like(values), groups, upper, estimate)


curve = curve_of({"ELBO": [2.0, 2.0, 2.0], "CUBO(2)": [2.0, -0.5, -1.0], "IWAE": [2.0, 0.3, 0.1]}, (1, 10, 100))


def compared() -> Comparison:
    """Three models, whose differences vary less over the data than their values."""
    noise = np.random.default_rng(0).normal(size=(3, 30))
    shifts = {"the best of them": 0.0, "second": -0.05, "third": -0.2}
    rows = zip(shifts.items(), noise, strict=True)
    return Comparison({name: replace(estimate, log_p=estimate.log_p + shift + 0.1 * row) for (name, shift), row in rows})


split = KLDecomposition(np.full((2, 30), 4.0), np.full((2, 30), 3.0), np.array([0.5, 2.0, 0.0, 1.5]))
traversal = Traversal(torch.zeros(3, 7, 4), torch.rand(3, 7, 5, 4), (0, 3, 1), torch.linspace(-3, 3, 7), "posterior")
interpolation = Interpolation(torch.zeros(2, 5, 4), torch.rand(2, 5, 5, 4), torch.linspace(0, 1, 5))
plane = RateDistortion(
    {name: rate + np.linspace(-1, 1, 30) for name, rate in [("β = 4", 2.0), ("β = 1", 10.0)]},
    {name: distortion + np.linspace(1, -1, 30) for name, distortion in [("β = 4", 95.0), ("β = 1", 80.0)]},
    10,
)


figures = {
    "aggregate_posterior": partial(plots.aggregate_posterior, torch.randn(50, 3), torch.randn(60, 3)),
    "interpolations": partial(plots.interpolations, interpolation),
    "kl_per_dimension": partial(plots.kl_per_dimension, split),
    "rate_distortion": partial(plots.rate_distortion, plane),
    "traversals": partial(plots.traversals, traversal),
    "loss_curve": partial(plots.loss_curve, metrics),
    "bound_against_particles": partial(plots.bound_against_particles, estimate),
    "bound_curve": partial(plots.bound_curve, curve),
    "comparison": partial(plots.comparison, compared()),
    "latent_map": partial(plots.latent_map, torch.randn(20, 2)),
    "image_grid": partial(plots.image_grid, pictures),
    "samples": partial(plots.samples, pictures),
    "reconstructions": partial(plots.reconstructions, pictures, pictures),
}


def test_every_figure_is_tried():
    assert sorted(figures) == plots.__all__


@pytest.mark.parametrize("name", plots.__all__)
def test_draws_on_the_axes_it_is_handed(name, ax):
    assert figures[name](ax=ax) is ax
    assert ax.has_data()


@pytest.mark.parametrize("name", plots.__all__)
def test_draws_on_a_new_figure(name):
    ax = figures[name]()
    assert ax.has_data()
    assert plt.get_fignums() == [ax.figure.number]
    plt.close(ax.figure)


def lines(ax):
    return {line.get_label(): line.get_xydata().T for line in ax.lines}


def test_loss_curve_has_bounds_and_terms(ax):
    plots.loss_curve(metrics, ax)
    drawn = lines(ax)
    assert list(drawn) == ["reconstruction, training", "bound, training", "bound, validation"]
    for label, name in [("bound, training", "train_bound"), ("bound, validation", "validation_bound")]:
        np.testing.assert_array_equal(drawn[label], [[row["epoch"] for row in metrics], [row[name] for row in metrics]])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == metrics[-1]["train_reconstruction"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "nats per datum")


def test_loss_curve_leaves_out_the_plunge(ax):
    plots.loss_curve(metrics, ax)
    assert ax.get_ylim()[0] > metrics[0]["train_bound"] + 100
    assert ax.get_ylim()[0] < metrics[4]["validation_bound"]


def test_loss_curve_without_validation(ax):
    plots.loss_curve([{"epoch": row["epoch"], "train_bound": row["train_bound"]} for row in metrics], ax)
    assert list(lines(ax)) == ["bound, training"]


def test_loss_curve_with_validation_now_and_then(ax):
    some = [row | {"validation_bound": None} if row["epoch"] % 2 else row for row in metrics]
    plots.loss_curve(some, ax)
    assert lines(ax)["bound, validation"][0].tolist() == list(range(2, 41, 2))


def test_loss_curve_of_one_epoch(ax):
    plots.loss_curve(metrics[:1], ax)
    assert lines(ax)["bound, training"].tolist() == [[1], [-600]]


@pytest.mark.parametrize("nothing", [[], [{"epoch": 1}]], ids=str)
def test_loss_curve_needs_a_bound(nothing, ax):
    with refused("train_bound", "metrics.jsonl"):
        plots.loss_curve(nothing, ax)


def test_bound_against_particles_ends_below_log_p(ax):
    plots.bound_against_particles(estimate, ax)
    line, *_, level = ax.lines
    assert line.get_xdata().tolist() == [1, 10, 100]
    np.testing.assert_allclose(line.get_ydata(), [bound.mean() for bound in estimate.bounds.values()])
    assert set(level.get_ydata()) == {estimate.mean}
    assert ax.get_xscale() == "log"
    assert any("by 1,000 draws" in text.get_text() for text in ax.texts)


def test_bars_are_of_the_gap_and_not_of_the_data(ax):
    spread = replace(
        estimate,
        log_p=estimate.log_p + 1000 * np.arange(30),
        bounds={count: bound + 1000 * np.arange(30) for count, bound in estimate.bounds.items()},
    )
    plots.bound_against_particles(spread, ax)
    bars = ax.containers[0].lines[2][0].get_segments()
    gap = estimate.gap(1)
    assert np.ptp(bars[0][:, 1]) == pytest.approx(2 * 1.96 * gap.std(ddof=1) / math.sqrt(30))


def test_bound_against_particles_of_one_datum(ax):
    plots.bound_against_particles(LogLikelihood.from_log_weights(torch.randn(100, 1), (1, 10)), ax)


def test_bound_against_particles_needs_bounds(ax):
    with refused("num_particles=(1, 5, 50, 500)"):
        plots.bound_against_particles(replace(estimate, bounds={}), ax)
    with refused("log p(x)", "-inf"):
        plots.bound_against_particles(replace(estimate, log_p=np.array([-np.inf, 1.0])), ax)


def points(ax):
    return next(collection for collection in ax.collections if isinstance(collection, PathCollection))


def test_latent_map_places_each_datum(ax):
    found = LatentMap(np.random.default_rng(0).normal(size=(9, 2)), ("first", "second"))
    plots.latent_map(found, ax=ax)
    np.testing.assert_array_equal(points(ax).get_offsets(), found.coordinates)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("first", "second")


@pytest.mark.parametrize("labels", [torch.arange(30) % 10, np.arange(30) % 3, np.array(["cat", "dog"] * 15)])
def test_latent_map_gives_each_class_a_colour(labels, ax):
    plots.latent_map(torch.randn(30, 2), labels, ax)
    names, classes = np.unique(np.asarray(labels), return_inverse=True)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [str(name) for name in names]
    assert [to_hex(colour) for colour in points(ax).get_facecolors()] == [CLASSES[index] for index in classes]


def test_latent_map_gives_many_labels_a_colour_bar(ax):
    labels = torch.linspace(0, 1, 30)
    plots.latent_map(torch.randn(30, 2), labels, ax)
    assert ax.get_legend() is None
    np.testing.assert_allclose(points(ax).get_array(), labels)
    assert len(ax.figure.axes) == 2


def pixels(ax):
    return np.asarray(ax.images[0].get_array())


def test_image_grid_holds_each_picture(ax):
    plots.image_grid(pictures, ax, columns=3)
    assert pixels(ax).shape == (3 * 5 + 2, 3 * 4 + 2, 3)
    np.testing.assert_allclose(pixels(ax)[6:11, 5:9, 0], pictures[4])
    np.testing.assert_array_equal(pixels(ax)[5], 1.0)
    np.testing.assert_array_equal(pixels(ax)[12:, 5:], 1.0)


@pytest.mark.parametrize("shape", [(7, 1, 5, 4), (7, 3, 5, 4)])
def test_image_grid_of_channels(shape, ax):
    x = torch.rand(shape)
    plots.image_grid(x, ax)
    np.testing.assert_allclose(pixels(ax)[:5, :4], x[0].expand(3, 5, 4).permute(1, 2, 0))


def test_bytes_are_white_at_255(ax):
    plots.image_grid((pictures * 255).round().byte(), ax, columns=1)
    np.testing.assert_allclose(pixels(ax)[:5, :, 1], pictures[0], atol=0.5 / 255 + 1e-6)


def test_values_beyond_stretch_the_scale(ax):
    plots.image_grid(pictures * 4 - 2, ax, columns=1)
    assert 0 <= pixels(ax).min() < pixels(ax).max() <= 1
    assert np.corrcoef(pixels(ax)[:5, :, 0].ravel(), pictures[0].ravel())[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("draw", [plots.image_grid, plots.samples])
@pytest.mark.parametrize("shape", [(7, 5), (7, 2, 5, 4), (7,)])
def test_other_shapes_are_refused(draw, shape, ax):
    with refused(shape, "(N, H, W)", "(N, 1, H, W)", "(N, 3, H, W)"):
        draw(torch.rand(shape), ax)


def test_reconstructions_are_below_their_data(ax):
    plots.reconstructions(pictures, 1 - pictures, ax, columns=4)
    assert pixels(ax).shape == (4 * 5 + 3, 4 * 4 + 3, 3)
    np.testing.assert_allclose(pixels(ax)[:5, 5:9, 0], pictures[1])
    np.testing.assert_allclose(pixels(ax)[6:11, 5:9, 0], 1 - pictures[1])
    np.testing.assert_allclose(pixels(ax)[12:17, :4, 0], pictures[4])
    np.testing.assert_array_equal(pixels(ax)[12:, 15:], 1.0)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["data", "reconstruction"] * 2
    assert ax.get_yticks().tolist() == [2, 8, 14, 20]


def test_reconstructions_need_the_shape_of_the_data(ax):
    with refused(tuple(pictures.shape), (5, *pictures.shape[1:])):
        plots.reconstructions(pictures, pictures[:5], ax)


def bound_lines(ax):
    return {container.get_label(): container.lines[0] for container in ax.containers}


def test_bound_curve_draws_each_bound_at_its_gap_from_log_p(ax):
    plots.bound_curve(curve, ax)
    drawn = bound_lines(ax)
    assert list(drawn) == list(curve.names)
    for name, gap in zip(curve.names, curve.gap_mean, strict=True):
        assert list(drawn[name].get_xdata()) == [1, 10, 100]
        np.testing.assert_allclose(drawn[name].get_ydata(), estimate.mean - gap)
    levels = [line for line in ax.lines if line.get_label() == "log p(x)"]
    assert [set(line.get_ydata()) for line in levels] == [{estimate.mean}]
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "10", "100"]
    assert "by 1,000 draws" in ax.get_title(loc="left")


def test_bound_curve_has_bars_of_the_gap_and_a_band_of_the_draws(ax):
    plots.bound_curve(curve, ax)
    bars = ax.containers[2].lines[2][0].get_segments()
    assert np.ptp(bars[1][:, 1]) == pytest.approx(2 * 1.96 * curve.gap_error[2, 1])
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx(
        (estimate.mean - 1.96 * estimate.monte_carlo_error, estimate.mean + 1.96 * estimate.monte_carlo_error)
    )


def test_bound_curve_names_its_lines_from_above_and_beside_the_data(ax):
    plots.bound_curve(curve, ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["CUBO(2)", "log p(x)", "IWAE", "ELBO"]
    assert [bound_lines(ax)[name].get_linestyle() for name in curve.names] == ["-", "--", "-"]
    ax.figure.draw_without_rendering()
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())
    assert ax.figure.bbox.contains(*ax.get_legend().get_window_extent().max)


def test_bound_curve_sorts_the_particles(ax):
    plots.bound_curve(curve_of({"IWAE": [0.1, 2.0, 0.3]}, (100, 1, 10)), ax)
    line = bound_lines(ax)["IWAE"]
    assert list(line.get_xdata()) == [1, 10, 100]
    np.testing.assert_allclose(line.get_ydata(), estimate.mean - np.array([2.0, 0.3, 0.1]))


def test_bound_curve_of_many_bounds_and_one_number_of_particles(ax):
    plots.bound_curve(curve_of({f"bound {number}": [1.0] for number in range(12)}, (5,)), ax)
    assert len(ax.get_legend().get_texts()) == 13


def test_bound_curve_leaves_out_what_is_infinite(ax):
    plots.bound_curve(curve_of({"ELBO": [math.inf, math.inf], "IWAE": [math.inf, 1.0]}, (1, 10)), ax)
    assert np.isfinite(ax.get_ylim()).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["log p(x)", "IWAE", "ELBO"]


def test_bound_curve_needs_a_line_to_approach(ax):
    with refused("log p(x)", "-inf"):
        plots.bound_curve(replace(curve, log_likelihood=replace(estimate, log_p=np.array([-np.inf, 1.0]))), ax)


def test_comparison_has_a_row_a_model_with_the_paired_difference(ax):
    found = compared()
    plots.comparison(found, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == found.names
    points = ax.lines[0].get_xydata() if len(ax.lines[0].get_xydata()) == 3 else ax.containers[1][0].get_xydata()
    np.testing.assert_allclose(points[:, 0], [-found.difference(name)[0] for name in found.names])
    segments = ax.containers[1][2][0].get_segments()
    halves = [(segment[1, 0] - segment[0, 0]) / 2 for segment in segments]
    np.testing.assert_allclose(halves, [1.96 * found.difference(name)[1] for name in found.names])
    assert ax.yaxis_inverted()


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_kl_per_dimension_is_sorted(ax):
    plots.kl_per_dimension(split, ax)
    assert [bar.get_height() for bar in ax.patches] == [2.0, 1.5, 0.5, 0.0]
    assert labels(ax.xaxis) == ["z2", "z4", "z1", "z3"]
    assert ax.get_title(loc="left") == "4 dimensions, 4.00 nats together"


def test_kl_per_dimension_of_many_dimensions_has_ranks(ax):
    plots.kl_per_dimension(torch.rand(100), ax)
    assert len(ax.patches) == 100
    assert not any(label.startswith("z") for label in labels(ax.xaxis))
    assert len(labels(ax.xaxis)) < 12


def test_kl_per_dimension_says_why_there_is_none(ax):
    with refused("KL", "MultivariateNormal"):
        plots.kl_per_dimension(replace(split, per_dimension=None, no_dimensions="MultivariateNormal"), ax)


def test_traversals_have_a_row_a_dimension(ax):
    plots.traversals(traversal, ax)
    assert labels(ax.yaxis) == ["z1", "z4", "z2"]
    assert labels(ax.xaxis) == ["\N{MINUS SIGN}3", "\N{MINUS SIGN}2", "\N{MINUS SIGN}1", "0", "1", "2", "3"]
    drawn = ax.images[0].get_array()
    assert drawn.shape[:2] == (3 * 6 - 1, 7 * 5 - 1)
    np.testing.assert_allclose(drawn[6:11, 10:14, 0], traversal.means[1, 2])
    assert "of the posterior" in ax.get_xlabel()


def test_traversals_over_the_prior_have_quantiles(ax):
    levels = torch.special.ndtr(torch.linspace(-3.0, 3.0, 7))
    plots.traversals(replace(traversal, levels=levels, over="prior"), ax)
    assert labels(ax.xaxis) == ["0.1", "2.3", "16", "50", "84", "97.7", "99.9"]
    assert ax.get_xlabel() == "quantile of the prior, in percent"


def test_interpolations_have_a_row_a_path(ax):
    plots.interpolations(interpolation, ax)
    assert labels(ax.xaxis) == ["start", "25%", "50%", "75%", "end"]
    drawn = ax.images[0].get_array()
    np.testing.assert_allclose(drawn[6:11, 20:24, 0], interpolation.means[1, 4])


def test_paths_of_colour_pictures(ax):
    plots.traversals(replace(traversal, means=torch.rand(3, 7, 3, 5, 4)), ax)
    assert ax.images[0].get_array().shape == (17, 34, 3)


@pytest.mark.parametrize("draw", [plots.traversals, plots.interpolations])
def test_paths_of_data_that_are_no_pictures(draw, ax):
    path = traversal if draw is plots.traversals else interpolation
    with refused("(N, H, W)", "(N, 1, H, W)", "(N, 3, H, W)"):
        draw(replace(path, means=path.means.flatten(2)), ax)


def test_rate_distortion_has_a_point_a_pair_and_lines_of_one_elbo(ax):
    plots.rate_distortion(plane, ax)
    points = ax.containers[0][0].get_xydata()
    np.testing.assert_allclose(points, [[2.0, 95.0], [10.0, 80.0]])
    across, along = ax.containers[0][2]
    for bars, axis, of in [(across, 0, plane.rate), (along, 1, plane.distortion)]:
        halves = [np.ptp(segment[:, axis]) / 2 for segment in bars.get_segments()]
        np.testing.assert_allclose(halves, [1.96 * of(name)[1] for name in plane.names])
    broken = [line for line in ax.lines if line.get_linestyle() == "--"]
    sums = [np.unique(np.round(line.get_xydata().sum(1), 9)) for line in broken]
    assert all(len(level) == 1 for level in sums)
    assert len(broken) >= 3
    texts = {text.get_text() for text in ax.texts}
    assert {"β = 4", "β = 1"} < texts
    shown = {float(text.replace("\N{MINUS SIGN}", "-")) for text in texts - {"β = 4", "β = 1"}}
    assert shown
    assert shown <= {-float(level[0]) for level in sums}


def test_rate_distortion_of_one_datum(ax):
    one = RateDistortion({"one": np.array([3.0])}, {"one": np.array([-3.0])}, 10)
    plots.rate_distortion(one, ax)
    assert "one" in {text.get_text() for text in ax.texts}
    assert "-0" not in {text.get_text().replace("\N{MINUS SIGN}", "-") for text in ax.texts}


def beside(ax):
    """The axes of the deviations."""
    return next(other for other in ax.figure.axes if other is not ax)


def test_aggregate_posterior_of_two_dimensions_is_the_space_itself(ax):
    prior, posterior = torch.randn(300, 2), torch.randn(400, 2) * torch.tensor([0.5, 2.0])
    plots.aggregate_posterior(prior, posterior, ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z1", "z2")
    (points,) = [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]
    np.testing.assert_allclose(points.get_offsets(), posterior)
    widths = [bar.get_width() for bar in beside(ax).patches]
    np.testing.assert_allclose(widths, [posterior[:, 1].std(correction=0), posterior[:, 0].std(correction=0)], rtol=1e-5)
    assert labels(beside(ax).yaxis) == ["z2", "z1"]
    line = beside(ax).lines[0].get_xdata()
    np.testing.assert_allclose(line[::2], [prior[:, 1].std(correction=0), prior[:, 0].std(correction=0)], rtol=1e-5)


def test_contours_of_the_aggregate_posterior_enclose_their_shares(ax):
    """Of draws of N(0, I) the median radius is sqrt(2 ln 2), and the 95% one sqrt(2 ln 20)."""
    draws = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    plots.aggregate_posterior(draws, draws, ax, points=False)
    assert not [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]
    outer, inner = ax.collections[0].get_paths()
    for path, share in [(outer, 0.95), (inner, 0.5)]:
        radius = np.linalg.norm(path.vertices, axis=1).mean()
        assert radius == pytest.approx(math.sqrt(-2 * math.log(1 - share)), rel=0.1)


def test_aggregate_posterior_of_more_dimensions_is_projected(ax):
    scales = torch.cat([torch.tensor([0.1, 3.0, 0.1, 2.0]), 0.1 * torch.ones(36)])
    plots.aggregate_posterior(torch.randn(300, 40), torch.randn(400, 40) * scales, ax)
    assert ax.get_xlabel().startswith("component 1 of the aggregate posterior (")
    points = next(drawn for drawn in ax.collections if isinstance(drawn, PathCollection)).get_offsets()
    np.testing.assert_allclose(points.std(0), [3.0, 2.0], rtol=0.15)
    assert not any(label.startswith("z") for label in labels(beside(ax).yaxis))


def test_draws_on_a_line_have_no_contours(ax):
    line = torch.randn(50, 1).expand(50, 2)
    plots.aggregate_posterior(torch.randn(50, 2), line, ax)
    contours = [drawn for drawn in ax.collections if not isinstance(drawn, PathCollection)]
    assert len(contours) == 1


@pytest.mark.parametrize(
    ("prior", "posterior", "words"),
    [
        (torch.randn(9, 1), torch.randn(9, 1), ["prior", (9, 1), "(draws, D)"]),
        (torch.randn(9, 2), torch.randn(2, 2), ["posterior", (2, 2), "(draws, D)"]),
        (torch.randn(9, 2), torch.randn(9, 3), ["prior", 2, "posterior", 3]),
    ],
)
def test_aggregate_posterior_needs_draws(prior, posterior, words, ax):
    with refused(*words):
        plots.aggregate_posterior(prior, posterior, ax)
