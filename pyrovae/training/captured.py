"""A function captured in CUDA graphs, to be replayed without the host's work."""

from collections.abc import Callable

import torch

RUNS_A_REPLAY = 8
"""Runs of the function in the larger of its two graphs."""
WARM_UP = 3
"""Runs before a capture, so that what libraries make at a first call has been made."""


class Captured:
    """A function of no arguments that only launches work on the current CUDA device, from and to tensors that stay.

    Its first runs are not captured; the runs after them are replays of one graph with several runs and one with a single
    run. Random numbers go on from replay to replay as they would from run to run.

    Args:
        function: what is captured; it must not wait for the device.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, times: int) -> None:
        """Run the function so many times."""
        if not self._graphs:
            times -= self._warm_up(min(WARM_UP, times))
        for size in (RUNS_A_REPLAY, 1):
            for _ in range(times // size):
                self._graph(size).replay()
            times %= size

    def _warm_up(self, times: int) -> int:
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(times):
                self._function()
        current.wait_stream(side)
        return times

    def _graph(self, size: int) -> torch.cuda.CUDAGraph:
        if size not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(size):
                    self._function()
            self._graphs[size] = graph
        return self._graphs[size]
