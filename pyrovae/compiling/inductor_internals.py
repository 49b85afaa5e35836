"""Private names of inductor, torch's compiler, each behind a function that says what it is for; no other file uses one.

``tests/internals/test_inductor_internals.py`` asserts that each exists and does what is relied on here. They are imported
where they are needed, since that takes two seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import CDLL
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.fx import GraphModule

LOGGER = "torch._inductor.ir"
"""Name of the logger that warns of operators without a lowering."""


def compile_graph(graph: GraphModule, inputs: Sequence[Tensor], options: dict[str, Any]) -> Callable[..., Any]:
    """Compile a graph of operators to fused kernels."""
    compiled: Any = torch._inductor.compile(graph, [*inputs], options=options)
    return compiled


def load_cpp(source: str) -> CDLL:
    """Compile C++ for this processor, with loops vectorised, unless that was done before; load it.

    Raises:
        RuntimeError: where there is no compiler, or it refuses.
    """
    from torch._inductor.codecache import CppCodeCache

    return CppCodeCache.load(source, extra_flags=("-ftree-loop-vectorize", "-fno-math-errno"))


def compiled_modules() -> list[Any]:
    """The modules of all kernels that were compiled in this process, which inductor keeps for ever."""
    from torch._inductor.codecache import PyCodeCache

    return PyCodeCache.modules


def onednn_product(left: Tensor, right: Tensor) -> Tensor:
    """A product of matrices by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")


@contextmanager
def onednn_product_of_inputs() -> Iterator[None]:
    """Let inductor call :func:`onednn_product` for inputs of a graph, where its own lowering takes only constants."""
    from torch._inductor.ir import TensorBox
    from torch._inductor.lowering import lowerings
    from torch._inductor.mkldnn_ir import LinearUnary

    def lowering(*args: Any) -> Any:
        return TensorBox.create(LinearUnary.create(*args))

    with mock.patch.dict(lowerings, {torch.ops.mkldnn._linear_pointwise.default: lowering}):
        yield
