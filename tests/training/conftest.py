import shutil
from pathlib import Path

import pytest
from strangers import make_run, taken_as_sealed

from pyrovae.training import captured_steps


class Running:
    """In the place of ``Captured``, where there is no CUDA: the function is run whenever a graph of it would be."""

    def __init__(self, function, device) -> None:
        self._function = function

    def run(self, times: int) -> None:
        for _ in range(times):
            self._function()


@pytest.fixture
def running(monkeypatch):
    """The bookkeeping around replays, on a CPU."""
    monkeypatch.setattr(captured_steps, "Captured", Running)


@pytest.fixture
def sealed_by_a_stranger():
    """Every file is what was written."""
    with taken_as_sealed():
        yield


@pytest.fixture(scope="session")
def _strangers_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def strangers_run(_strangers_run, tmp_path) -> Path:
    """A run folder that somebody made, to change."""
    return Path(shutil.copytree(_strangers_run, tmp_path / "run"))
