import pytest

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
