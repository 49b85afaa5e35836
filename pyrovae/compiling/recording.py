"""Programs recorded as one flat graph of tensor operations: Pyro's handlers run once, and never again.

``make_fx`` records what one eager run does to tensors, derivatives included. Random numbers stay those of torch's
generators, drawn by torch's own operators in the order in which the recorded Python drew them: the same seed gives the same
draws, recorded or not.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyrovae.compiling.buffers import buffers_of, in_place, tensors_of, write_back
from pyrovae.compiling.graph_passes import copy_views, lift_tensors
from pyrovae.compiling.isolation import sources_forgotten, torch_undisturbed
from pyrovae.compiling.python_reads import PythonReads, reads_without_effect
from pyrovae.compiling.recording_context import recording_settings
from pyrovae.compiling.refusals import refused
from pyrovae.compiling.repeatability import require_no_memory
from pyrovae.runtime.module_state import reached
from pyrovae.runtime.parameters import same_random_numbers


class Recording:
    """A flat graph of what one run of a function does to tensors, including derivatives that it takes and hooks.

    The function runs as it runs anywhere, on the tensors that are there, and what is done to them is taken down below
    autograd. So a gradient is the one that the programs themselves have, whatever in them has a backward pass of its own.
    Buffers and random generators are afterwards what they were.

    A buffer that the programs replace by another tensor is written to instead: it stays the one tensor that it is.

    Args:
        function: of ``inputs``; gives tensors, or None in the place of some.
        module: has the parameters and buffers that it uses. Those of networks that it calls besides are found.
        inputs: what it is run with.

    Attributes:
        tensors: what the graph reads and writes beside its inputs, the very tensors, in the order in which a call takes
            them: parameters, buffers, and whatever else the programs hold.

    Raises:
        NotRecordedError: where the function, or what it calls, looks at the numbers in a tensor.
    """

    def __init__(self, function: Callable[..., Any], module: nn.Module, inputs: Sequence[Tensor]) -> None:
        with same_random_numbers(*inputs), reached(module) as called, refused(), torch_undisturbed(), sources_forgotten():
            numbers = PythonReads(reads_without_effect(function, module, inputs))
            require_no_memory(function, called, inputs)
            own = tensors_of(called)
            with recording_settings(), numbers:
                self._graph = make_fx(lambda *all: in_place(function, called, all[len(own) :]))(*own, *inputs)
            copy_views(self._graph)
            self.tensors: list[Tensor] = [*own, *lift_tensors(self._graph)]
        self._own = len(own)
        self._buffers = [*buffers_of(called)]

    def __call__(self, tensors: Sequence[Tensor], *inputs: Tensor) -> list[Any]:
        """Compute the function's output for inputs of the recorded shapes, with these tensors in the place of its own."""
        return self._graph(*tensors[: self._own], *inputs, *tensors[self._own :])

    def take_up(self) -> None:
        """Take over the numbers of buffers that were replaced, by an eager run say, and restore the recorded buffers."""
        write_back(self._buffers)
