from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pyrovae.cli import drawing


@contextmanager
def drawing_left_out() -> Iterator[None]:
    """Evaluations within it write no figures: drawing is half of what an evaluation of few data costs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "draw", lambda path, figure: None)
        yield


@pytest.fixture
def undrawn():
    """Evaluations that write no figures, for tests of all else."""
    with drawing_left_out():
        yield
