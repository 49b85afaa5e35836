"""Functions of tensors as kernels fused by inductor, with torch's own random numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyrovae.compiling.cpu_kernels import biased, onednn_products, product, rewrite, tanh
from pyrovae.compiling.inductor_internals import compile_graph
from pyrovae.compiling.isolation import sources_forgotten, torch_undisturbed
from pyrovae.compiling.refusals import refused
from pyrovae.internals.torch_internals import record_with_fakes
from pyrovae.runtime.parameters import same_random_numbers


def _bernoulli(probabilities: Tensor, **_: Any) -> Tensor:
    """Zeros and ones from the numbers that torch draws for them: inductor's own way takes others in double precision."""
    return torch.empty(probabilities.shape, dtype=probabilities.dtype, device=probabilities.device).bernoulli_(probabilities)


decompositions: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.bernoulli.default: _bernoulli,
    torch.ops.aten.addmm.default: biased,
    torch.ops.aten.mm.default: product,
    torch.ops.aten.tanh.default: tanh,
}
"""Replacements for operators in fused kernels; this library's own operators are added where they are defined."""


def fuse(function: Callable[..., Any], inputs: list[Tensor]) -> Callable[..., Any]:
    """Compile a function of tensors to fused kernels, without a gradient of their own; changes in place are kept.

    Raises:
        NotRecordedError: where it, or what it calls, looks at the numbers in a tensor.
    """
    with torch.no_grad(), same_random_numbers(*inputs), refused(), torch_undisturbed(), sources_forgotten():
        graph = record_with_fakes(function, decompositions, inputs)
        if inputs[0].device.type == "cpu":
            rewrite(graph)
        with onednn_products():
            fused = compile_graph(graph, inputs, _options(inputs[0].device))
    return torch.no_grad()(fused)


def _options(device: torch.device) -> dict[str, Any]:
    """Options of inductor: torch's random numbers, sums in a fixed order, and on a CPU no Python between kernels."""
    in_order = {"reorder_for_peak_memory": False, "reorder_for_locality": False}  # random numbers must be drawn in theirs
    return {"fallback_random": True, "deterministic": True, "cpp_wrapper": device.type == "cpu", **in_order}
