import pytest
import torch

from pyrovae.training import replays


@pytest.fixture
def unfused(monkeypatch):
    """Recorded steps that are run as graphs of tensor operations, which spares every test a compiler's run."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)


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
    monkeypatch.setattr(replays, "Captured", Running)
