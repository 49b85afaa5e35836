import matplotlib
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

matplotlib.use("Agg")


@pytest.fixture
def ax():
    """Axes that pyplot does not know; drawn at the end, where a wrong artist would show."""
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    yield axes
    figure.canvas.draw()
    assert plt.get_fignums() == []
