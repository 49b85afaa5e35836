import pytest

from pyrovae.cli import drawing


@pytest.fixture
def undrawn(monkeypatch):
    """Evaluations that write no figures, for tests of all else: drawing is half of what an evaluation of few data costs."""
    monkeypatch.setattr(drawing, "draw", lambda path, figure: None)
