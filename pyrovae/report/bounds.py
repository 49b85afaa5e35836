"""The report's figure of the bound against its number of particles, and of the estimates that it approaches."""

import math

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, NumeralTickFormatter
from bokeh.plotting import figure

from pyrovae.evaluation import LogLikelihood
from pyrovae.evaluation.estimates.standard_error import mean_and_error
from pyrovae.evaluation.estimates.table import method
from pyrovae.plots.palette import CLASSES, FIRST, SECOND
from pyrovae.report.canvas import canvas
from pyrovae.report.page import Annealed, Page
from pyrovae.report.words import number


def bounds(page: Page) -> figure:
    r"""Draw :math:`\mathrm{IWAE}_K` against K, and lines for the estimates of log p(x)."""
    estimate, particles = page.estimate, sorted(page.estimate.bounds)
    margin = 1.6 if len(particles) < 2 else (particles[-1] / particles[0]) ** 0.06
    ends = (particles[0] / margin, particles[-1] * margin)
    made = canvas("particles K", "nats per datum", x_axis_type="log", x_range=ends)
    made.xaxis.ticker = FixedTicker(ticks=particles)
    made.xaxis.formatter = NumeralTickFormatter(format="0,0")
    made.xgrid.grid_line_color = None
    _level(made, ends, estimate.mean, estimate.monte_carlo_error, SECOND, f"log p(x) {method(estimate)}")
    if page.annealed is not None:
        _level(made, ends, page.annealed.mean, page.annealed.error, CLASSES[4], annealing(page.annealed))
    _draw_bounds(made, _columns(estimate, particles))
    made.legend.location = "bottom_right"
    made.legend.background_fill_alpha = 0.8
    return made


def annealing(annealed: Annealed) -> str:
    """Name the estimate by annealed importance sampling."""
    return f"annealed, {annealed.temperatures:,} temperatures, {annealed.chains:,} chains"


def _columns(estimate: LogLikelihood, particles: list[int]) -> ColumnDataSource:
    """Compute the bounds with 95% intervals of the gap to the line, without the differences between data."""
    gaps, errors = np.array([mean_and_error(estimate.gap(count)) for count in particles]).T
    half = 1.96 * np.nan_to_num(errors)
    level = estimate.mean - gaps
    return ColumnDataSource(
        {
            "particles": particles,
            "level": level,
            "low": level - half,
            "high": level + half,
            "said": [number(value, 3) for value in level],
            "gap": [f"{number(gap, 3)} ± {number(error, 3)}" for gap, error in zip(gaps, errors, strict=True)],
        }
    )


def _draw_bounds(made: figure, data: ColumnDataSource) -> None:
    made.segment("particles", "low", "particles", "high", source=data, color=FIRST, line_width=2)
    made.line("particles", "level", source=data, color=FIRST, line_width=1.5, legend_label="bound")
    dots = made.scatter("particles", "level", source=data, color=FIRST, size=9, legend_label="bound")
    said = [("particles", "@particles{0,0}"), ("bound", "@said"), ("below log p(x)", "@gap")]
    made.add_tools(HoverTool(renderers=[dots], tooltips=said))


def _level(made: figure, ends: tuple[float, float], mean: float, error: float, colour: str, name: str) -> None:
    """Draw a horizontal line with the 95% interval that its draws leave."""
    half = 1.96 * error if math.isfinite(error) else 0.0
    made.varea(list(ends), [mean - half] * 2, [mean + half] * 2, color=colour, alpha=0.2)
    made.line(list(ends), [mean] * 2, color=colour, line_width=2, legend_label=name)
