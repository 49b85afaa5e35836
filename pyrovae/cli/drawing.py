"""Figures written to PNG files, without a window."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Drawing = Callable[[Axes], Axes]


def draw_all(folder: Path, drawings: Mapping[str, Drawing]) -> None:
    """Draw each figure into a file of the folder under its name."""
    folder.mkdir(exist_ok=True)
    for name, drawing in drawings.items():
        draw(folder / f"{name}.png", drawing)


def draw(path: Path, drawing: Drawing) -> None:
    """Draw one figure into a PNG file."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    drawing(figure.add_subplot())
    figure.savefig(path, dpi=150, bbox_inches="tight")
