"""Work on a CUDA device that is launched again without its Python."""

import warnings
from collections.abc import Callable

import torch

from pyrovae.compiling.fallback import NotCompiledWarning

RUNS_A_REPLAY = 8
"""Runs of the function in the larger of its two graphs."""
WARM_UP = 3
"""Runs before a capture, so that what libraries make at a first call has been made."""


class Captured:
    """A function of no arguments that only launches work on a CUDA device, from and to tensors that stay.

    Its first runs are not captured; the runs after them are replays of one graph with several runs and one with a single
    run. Random numbers go on from replay to replay as they would from run to run. Where a capture fails (a library waited
    for the device, say), there is a warning, and the function is run without one.

    Args:
        function: what is captured.
        device: where.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function = function
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._cold = WARM_UP
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._sizes: tuple[int, ...] = (RUNS_A_REPLAY, 1)

    def run(self, times: int) -> None:
        """Run the function so many times."""
        with torch.cuda.device(self._device):
            times -= self._warm_up(min(self._cold, times))
            for size in self._sizes:
                while times >= size and (graph := self._graph(size)):
                    graph.replay()
                    times -= size
            for _ in range(times):  # none are left where there are graphs
                self._function()

    def _warm_up(self, times: int) -> int:
        """Run it on a stream of its own, as captures do, and return how often."""
        if times:
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(times):
                    self._function()
            current.wait_stream(self._stream)
            self._cold -= times
        return times

    def _graph(self, size: int) -> torch.cuda.CUDAGraph | None:
        """So many runs as one graph; None where they cannot be captured."""
        if size in self._graphs or not self._sizes:
            return self._graphs.get(size)
        graph = torch.cuda.CUDAGraph()
        try:  # another thread may be reading data ahead, hence the mode
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                for _ in range(size):
                    self._function()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"the work is not done by a CUDA graph: it cannot be captured ({reason})", NotCompiledWarning, stacklevel=2
            )
            self._sizes = ()
            return None
        self._graphs[size] = graph
        return graph
