"""Private names of torch, each behind a name that says what it is for; those of inductor are in ``compiling/``.

``tests/internals/test_torch_internals.py`` asserts that each exists and does what is relied on here, so that a release of
torch that changes one says which.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform
from torch.fx import GraphModule, graph_module
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map_only as tree_map_only

__all__ = ["BatchNorm", "TorchDispatchMode", "tree_leaves", "tree_map_only"]

standard_gamma: Any = torch._standard_gamma  # pyright: ignore[reportPrivateImportUsage]
"""Function that draws from a gamma distribution of rate 1, given its concentration."""
sample_dirichlet: Any = torch._sample_dirichlet  # pyright: ignore[reportPrivateImportUsage]
"""Function that draws from a Dirichlet distribution, given its concentration."""

add_to_each: Any = torch.ops.aten._foreach_add_.Scalar
"""Operator that adds one number to each of several tensors."""
fused_adam: Any = torch.ops.aten._fused_adam_.default
"""Operator of Adam's update of several parameters."""
fused_adamw: Any = torch.ops.aten._fused_adamw_.default
"""The same with a decoupled decay."""


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The dictionary in which a module keeps its own parameters, where they can be replaced by any tensors."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary in which a module keeps its own buffers, where they can be replaced."""
    return module._buffers


def unsaved_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """A module's own buffers that ``state_dict`` leaves out."""
    return {name: module._buffers[name] for name in module._non_persistent_buffers_set}


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether somebody registered a hook for the steps of an optimiser."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def has_accumulation_hooks(parameter: nn.Parameter) -> bool:
    """Whether somebody registered a hook for the time when a parameter's gradient was accumulated."""
    return bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


def inner_schedules(schedule: LRScheduler) -> list[LRScheduler]:
    """The schedules that a ``SequentialLR`` or a ``ChainedScheduler`` is made of; none of another."""
    return [*getattr(schedule, "_schedulers", ())]


def version(tensor: Tensor) -> int:
    """The number of times that a tensor was changed in place."""
    return tensor._version


def schema_of(operator: Any) -> Any:
    """The schema of an operator, which says what it writes to and what shares memory; None for any other function."""
    return getattr(operator, "_schema", None)


def python_function_of(operator: Any) -> Callable[..., Any]:
    """The function of ``torch`` that calls an operator in half the time; the operator itself where there is none."""
    return getattr(torch, schema_of(operator).name.removeprefix("aten::"), operator)


def held_by_transform(transform: Transform) -> Iterator[Any]:
    """What a transform was built from, without its caches."""
    return (value for name, value in vars(transform).items() if name not in ("_inv", "_cached_x_y"))


def sources_of_graphs() -> dict[str, Any]:
    """The sources of all graphs that were made in this process, by file name, which torch keeps for tracebacks."""
    return graph_module._loader.eval_cache


def record_with_fakes(function: Callable[..., Any], decompositions: dict[Any, Any], inputs: list[Tensor]) -> GraphModule:
    """Record a function of tensors without their numbers; tensors that it holds stay what they are."""
    return make_fx(function, decompositions, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)


def has_imported_dynamo() -> bool:
    """Whether ``torch.compile`` may have been used; importing what it needs takes two seconds."""
    return "torch._dynamo" in sys.modules


def compiled_parts_recorded_as_written() -> AbstractContextManager[None]:
    """Let parts that ``torch.compile`` compiled be recorded as they were written, in place of an error."""
    return torch._dynamo.config.patch(error_on_nested_fx_trace=False)
