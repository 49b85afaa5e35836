"""The report's figure of k-hat against log p(x)."""

import numpy as np
from bokeh.models import ColumnDataSource, Span
from bokeh.plotting import figure

from pyrovae.plots.palette import FIRST, SECOND
from pyrovae.report.canvas import canvas, hover, scatter
from pyrovae.report.page import Page
from pyrovae.report.words import number


def k_hats(page: Page, data: ColumnDataSource) -> figure:
    """Draw each datum at its log p(x) and its k-hat, and the threshold where one is that of all."""
    made = canvas("log p(x) in nats", "Pareto k-hat", tools="pan,wheel_zoom,box_zoom,box_select,reset")
    renderers = [
        scatter(made, data, np.flatnonzero(rows), x="x_log_p", y="y_k_hat", fill_color=colour, legend_label=name)
        for colour, (rows, name) in _kinds(page).items()
        if rows.any()
    ]
    if page.estimate.effort is None:
        made.add_layout(Span(location=page.estimate.threshold, dimension="width", line_color=SECOND, line_dash="dashed"))
    made.add_layout(made.legend[0], "below")
    made.legend.orientation = "horizontal"
    hover(made, page.points, renderers)
    return made


def _kinds(page: Page) -> dict[str, tuple[np.ndarray, str]]:
    """Divide the data that can be drawn: those to be trusted and the others, by colour, each with its name."""
    points = page.points
    drawn = np.isfinite(points.k_hat) & np.isfinite(points.log_p)
    if page.estimate.effort is None:
        bad, name = points.k_hat > page.estimate.threshold, f"above {number(page.estimate.threshold)}"
    else:
        bad, name = ~points.trusted, "not to be trusted"
    return {FIRST: (drawn & ~bad, "to be trusted"), SECOND: (drawn & bad, name)}
