"""The report's figure of data in latent space."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.core.properties import value
from bokeh.models import ColorBar, ColumnDataSource, GlyphRenderer, Legend, LegendItem, LinearColorMapper
from bokeh.plotting import figure

from pyrovae.evaluation import LatentMap
from pyrovae.plots.palette import CLASSES, FIRST
from pyrovae.report.canvas import FONT, INK, canvas, hover, scatter
from pyrovae.report.page import Page, Points


def latent(page: Page, data: ColumnDataSource) -> figure:
    """Draw each datum at its place in latent space, coloured by its label.

    Up to ten different labels get a colour each, and a legend that hides them; more of them get a colour bar.
    """
    points = page.points
    assert points.latent is not None
    made = canvas(*points.latent.axes, tools="pan,wheel_zoom,box_zoom,box_select,reset", match_aspect=True)
    hover(made, points, _draw(made, data, points))
    if points.labels is not None and len(np.unique(points.labels)) <= len(CLASSES):
        _write_names(made, points.latent, points.labels)
    return made


def _draw(made: figure, data: ColumnDataSource, points: Points) -> list[GlyphRenderer]:
    place = {"x": "z1", "y": "z2"}
    everything = np.arange(len(points.index))
    if points.labels is None:
        return [scatter(made, data, everything, **place, fill_color=FIRST)]
    names = np.unique(points.labels)
    if len(names) > len(CLASSES):
        colours = LinearColorMapper(palette="Viridis256", low=float(names.min()), high=float(names.max()))
        made.add_layout(ColorBar(color_mapper=colours, title="label", width=8), "right")
        return [scatter(made, data, everything, **place, fill_color={"field": "number", "transform": colours})]
    drawn = {
        str(name): scatter(made, data, np.flatnonzero(points.labels == name), **place, fill_color=colour)
        for name, colour in zip(names, CLASSES, strict=False)
    }
    _explain(made, drawn)
    return list(drawn.values())


def _explain(made: figure, drawn: Mapping[str, GlyphRenderer]) -> None:
    items = [LegendItem(label=name, renderers=[renderer]) for name, renderer in drawn.items()]
    made.add_layout(Legend(items=items, click_policy="hide", orientation="horizontal", ncols=5, spacing=12), "below")


def _write_names(made: figure, coordinates: LatentMap, labels: np.ndarray) -> None:
    """Write each label at the median of its points, so that similar colours are told apart."""
    names = np.unique(labels)
    x, y = np.array([np.median(coordinates.coordinates[labels == name], 0) for name in names]).T
    data = ColumnDataSource({"x": x, "y": y, "text": [str(name) for name in names]})
    style: dict[str, Any] = {"text_align": "center", "text_baseline": "middle", "text_font_style": "bold"}
    style |= {"text_font": value(FONT), "text_font_size": "13px", "text_color": INK}
    style |= {"background_fill_color": "white", "background_fill_alpha": 0.8, "padding": 2, "border_radius": 3}
    made.text("x", "y", "text", source=data, **style)
