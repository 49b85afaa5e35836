"""Whether a function gives the same output when it is run again, as a recording must."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae.compiling.refusals import NotRecordedError
from pyrovae.internals.torch_internals import tree_leaves
from pyrovae.runtime.equivalence import difference
from pyrovae.runtime.module_state import attributes, reached
from pyrovae.runtime.parameters import same_random_numbers


def require_no_memory(function: Callable[..., Any], modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> None:
    """Raise a NotRecordedError where a function's output depends on what Python remembers of the last run."""
    kept = {part: attributes(part) for module in modules for part in module.modules()}
    outputs = []
    for _ in range(2):
        with same_random_numbers(*inputs), reached(*kept, numbers=False):
            outputs.append(function(*inputs))
    if not are_equal(*outputs):
        changed = [
            f"{type(part).__name__}.{name}"
            for part, before in kept.items()
            for name, value in attributes(part).items()
            if value is not before.get(name)
        ]
        what = f" ({', '.join(changed)} is another each time)" if changed else ""
        raise NotRecordedError(
            f"run again on the same data and random numbers, they give something else{what}; what changes from step to step "
            "must be a buffer"
        )


def are_equal(outputs: Any, others: Any) -> bool:
    """Whether two outputs are equal up to rounding, which differs from run to run on some devices."""
    one, other = ({"output": dict(enumerate(tree_leaves(each)))} for each in (outputs, others))
    return len(one["output"]) == len(other["output"]) and difference(one, other) is None
