"""Functions whose work on tensors is done again without their Python: in CUDA graphs, or from a tape of operations."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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


class Tape(TorchDispatchMode):
    """Within it, in-place operations are noted as they run, to be run again on other tensors in the place of ``given``.

    Attributes:
        complete: whether there is nothing but operations that change tensors which stay, and give nothing back. Only then
            is playing the tape what running the Python again would be.
    """

    def __init__(self, given: Sequence[Tensor | None]) -> None:
        super().__init__()
        self.complete = True
        self._places = {id(value): place for place, value in enumerate(given) if value is not None}
        self._calls: list[tuple[Callable[..., Any], list[Any], dict[str, Any], list[tuple[int, list[int]]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten":
            self.complete &= func._schema.is_mutable and not func._schema.returns
            slots = [(i, self._slots(arg)) for i, arg in enumerate(args) if isinstance(arg, list) and self._slots(arg)]
            self._calls.append((func, list(args), kwargs or {}, slots))
        return func(*args, **(kwargs or {}))

    def play(self, given: Sequence[Tensor | None]) -> None:
        """Run the operations again."""
        for func, args, kwargs, slots in self._calls:
            for position, places in slots:
                args[position] = [given[place] for place in places]
            func(*args, **kwargs)

    def _slots(self, arg: list[Any]) -> list[int]:
        """The places of the given tensors of which a list consists."""
        places = [self._places.get(id(value)) for value in arg]
        given = [place for place in places if place is not None]
        self.complete &= len(given) in (0, len(places))
        return given
