import pytest

from pyrovae.cli import evaluation


@pytest.fixture
def undrawn(monkeypatch):
    """Evaluations that write no figures, for tests of all else: drawing is half of what an evaluation of few data costs."""
    monkeypatch.setattr(evaluation, "draw", lambda path, drawing: None)
