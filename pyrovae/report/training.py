"""The report's figure of the bound in training, epoch by epoch."""

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, GlyphRenderer, HoverTool
from bokeh.plotting import figure

from pyrovae.plots.loss_curve import Curve, curve, without_the_plunge
from pyrovae.plots.palette import ASIDE, FIRST, SECOND
from pyrovae.report.canvas import canvas
from pyrovae.report.page import Page
from pyrovae.report.words import number


def training(page: Page) -> figure:
    """Draw the bound in training and validation against the epoch, and its two terms in training.

    The band hangs from the reconstruction term and is as deep as the KL term, so that its lower edge is the ELBO.
    """
    made = canvas("epoch", "nats per datum")
    made.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    top, depth = curve(page.metrics, "train_reconstruction"), curve(page.metrics, "train_kl")
    drawn = {"bound, training": (curve(page.metrics, "train_bound"), FIRST)}
    drawn["bound, validation"] = (curve(page.metrics, "validation_bound"), SECOND)
    if len(top[0]) and np.array_equal(top[0], depth[0]):
        made.varea(top[0], top[1] - depth[1], top[1], color=ASIDE, alpha=0.2, legend_label="KL")
        drawn = {"reconstruction": (top, ASIDE)} | drawn
    lines = [_line(made, name, *found) for name, found in drawn.items() if len(found[0][0])]
    made.add_tools(HoverTool(renderers=[*lines], tooltips=[("", "@name"), ("epoch", "@epoch"), ("nats", "@said")]))
    if limits := without_the_plunge([found[1] for found, _ in drawn.values()]):
        made.y_range.start, made.y_range.end = limits  # pyright: ignore[reportAttributeAccessIssue]
    made.add_layout(made.legend[0], "below")
    made.legend.orientation, made.legend.ncols = "horizontal", 2
    return made


def _line(made: figure, name: str, found: Curve, colour: str) -> GlyphRenderer:
    epochs, values = found
    said = [number(value, 3) for value in values]
    data = ColumnDataSource({"epoch": epochs, "value": values, "said": said, "name": [name] * len(said)})
    if len(epochs) < 10:
        made.scatter("epoch", "value", source=data, color=colour, size=6, legend_label=name)
    return made.line("epoch", "value", source=data, color=colour, line_width=2, legend_label=name)
