"""Parts that all figures of a page share: size, tools, colours, and the text of a datum under the mouse."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.models import CDSView, ColumnDataSource, GlyphRenderer, HoverTool, IndexFilter
from bokeh.plotting import figure
from bokeh.themes import Theme

from pyrovae.report.page import Points
from pyrovae.report.words import said

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
INK, QUIET, LINES = "#1f2328", "#57606a", "#e4e7eb"
_axis = {
    "axis_label_text_font": FONT,
    "axis_label_text_font_style": "normal",
    "axis_label_text_color": INK,
    "major_label_text_font": FONT,
    "major_label_text_color": QUIET,
    "axis_line_color": QUIET,
    "major_tick_line_color": QUIET,
    "minor_tick_line_color": None,
}
THEME = Theme(
    json={
        "attrs": {
            "Axis": _axis,
            "Grid": {"grid_line_color": LINES},
            "Plot": {"outline_line_color": None, "background_fill_color": None, "border_fill_color": None},
            "Legend": {"label_text_font": FONT, "label_text_color": INK, "border_line_color": None, "margin": 4},
            "Toolbar": {"logo": None},
        }
    }
)


def canvas(x: str, y: str, tools: str = "pan,wheel_zoom,box_zoom,reset", **options: Any) -> figure:
    """Make an empty figure as wide as its place; dragging and scrolling move the page until a tool is chosen."""
    fitted: dict[str, Any] = {"toolbar_location": "above", "height": 420, "sizing_mode": "stretch_width"}
    made = figure(x_axis_label=x, y_axis_label=y, tools=tools, **fitted, **options)
    made.toolbar.active_drag = None
    made.toolbar.active_scroll = None
    return made


def source(points: Points) -> ColumnDataSource:
    """Make the data that figures share, so that what is selected in one stands out in the other."""
    rows = [said(points, row) for row in range(len(points.index))]
    columns: dict[str, Any] = {name.replace(" ", "_"): [row[name] for row in rows] for name in (rows[0] if rows else ())}
    columns |= {"x_log_p": _finite(points.log_p), "y_k_hat": _finite(points.k_hat)}
    if points.pictures is not None:
        columns["picture"] = list(points.pictures)
    if points.latent is not None:
        columns["z1"], columns["z2"] = points.latent.coordinates.astype(np.float32).T
    if points.labels is not None:
        columns["number"] = points.labels.astype(np.float32)
    return ColumnDataSource(columns)


def _finite(values: np.ndarray) -> np.ndarray:
    """Replace infinite numbers by NaN, which is not drawn."""
    return np.where(np.isfinite(values), values, np.nan)


def scatter(made: figure, data: ColumnDataSource, rows: Sequence[int] | np.ndarray, **style: Any) -> GlyphRenderer:
    """Draw some of the data as points."""
    view = CDSView(filter=IndexFilter(indices=[int(row) for row in rows]))
    options = {"size": 7, "line_color": "white", "line_width": 0.5, "fill_alpha": 0.85, "nonselection_fill_alpha": 0.08}
    return made.scatter(source=data, view=view, **(options | style))


def hover(made: figure, points: Points, renderers: list[GlyphRenderer]) -> None:
    """Show a datum, with its numbers, under the mouse."""
    lines = [f"<div>{name} <b>@{{{name.replace(' ', '_')}}}</b></div>" for name in said(points, 0)]
    picture = (
        '<img src="@picture" alt="" height="84" style="image-rendering: pixelated; display: block; margin-bottom: 4px">'
        if points.pictures is not None
        else ""
    )
    text = f'<div style="font: 13px {FONT.replace(chr(34), "")}; color: {INK}; padding: 2px">{picture}{"".join(lines)}</div>'
    made.add_tools(HoverTool(renderers=[*renderers], tooltips=text.replace("'", "&#39;"), attachment="horizontal"))
