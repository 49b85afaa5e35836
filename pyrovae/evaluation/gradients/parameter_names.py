r"""The program that each parameter is used in, and its name there.

Autograd says it, not names: a parameter is the model's where :math:`\log p(x, z)` at stopped draws has a gradient for it,
and the guide's where its draws or :math:`\log q(z \mid x)` have one. So it is the same for modules, methods of one module,
and functions with ``pyro.param`` and ``pyro.module``.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from pyrovae.engine.call import Call
from pyrovae.engine.stop_gradient_draws import stop_values
from pyrovae.evaluation.gradients.buffer_copies import writing_to_copies
from pyrovae.objectives import ObjectiveModule
from pyrovae.runtime.batches import Batch
from pyrovae.runtime.parameters import Program, owner, same_random_numbers

PROGRAMS = ("model", "guide", "shared", "unused")
"""Where a parameter is used: in one of the two programs, in both, or in neither."""


def parameter_names(module: ObjectiveModule, parameters: Sequence[nn.Parameter], batch: Batch) -> list[str]:
    """Name each parameter by the program that it is used in and what it is called there; the names are unique."""
    users = _users(module, parameters, batch)
    outside = {value: name.removeprefix("stored.param:") for name, value in module.named_parameters()}
    called = outside | _names_in_statements(users.traces) | _names_in_programs(module)
    names = [f"{users.program(value)}.{called[value]}" for value in parameters]
    counts = Counter(names)
    return [f"{name} ({outside[p]})" if counts[name] > 1 else name for name, p in zip(names, parameters, strict=True)]


def _names_in_programs(module: ObjectiveModule) -> dict[nn.Parameter, str]:
    """The names of parameters within the modules that the two programs are, or are methods of."""
    owners = [owner(program) for program in (module.guide, module.model)]
    return {value: name for part in owners if isinstance(part, nn.Module) for name, value in part.named_parameters()}


def _names_in_statements(traces: Sequence[Trace]) -> dict[Any, str]:
    """The names that ``pyro.param`` and ``pyro.module`` statements give to unconstrained values."""
    nodes = [(name, node["value"]) for trace in traces for name, node in trace.nodes.items() if node["type"] == "param"]
    return {getattr(value, "unconstrained", lambda value=value: value)(): name.replace("$$$", ".") for name, value in nodes}


class _Users(NamedTuple):
    """The parameters that model and guide use, those of the modules that they are, and their traces."""

    used: tuple[set[nn.Parameter], set[nn.Parameter]]
    owned: tuple[set[nn.Parameter], set[nn.Parameter]]
    traces: tuple[Trace, Trace]

    def program(self, parameter: nn.Parameter) -> str:
        """One of ``PROGRAMS``; a parameter that neither uses counts as its owner's, if that is one of them alone."""
        places = _holding(parameter, self.used)
        if places:
            return places[0] if len(places) == 1 else "shared"
        places = _holding(parameter, self.owned)
        return places[0] if len(places) == 1 else "unused"


def _holding(parameter: nn.Parameter, sets: tuple[set[nn.Parameter], set[nn.Parameter]]) -> list[str]:
    return [program for program, found in zip(("model", "guide"), sets, strict=True) if parameter in found]


def _users(module: ObjectiveModule, parameters: Sequence[nn.Parameter], batch: Batch) -> _Users:
    """Run the pair once, and ask autograd which parameters the densities of either, and the guide's draws, come from."""
    with same_random_numbers(batch.x), writing_to_copies(module), module.opened() as (model, guide):
        call = Call(model, guide, (batch.x,), batch.given, 1, module.plates)
        draws = call.draw()
        observed = call.observe(stop_values(draws))
        weights = call.compose(observed, draws)
    values = [site["value"] for site in draws.nodes.values() if site["type"] == "sample"]
    used = _sources([weights.log_joint], parameters), _sources([weights.log_proposal, *values], parameters)
    return _Users(used, (_owned(module.model), _owned(module.guide)), (observed, draws))


def _owned(program: Program) -> set[nn.Parameter]:
    module = owner(program)
    return set(module.parameters()) if isinstance(module, nn.Module) else set()


def _sources(outputs: Sequence[Any], parameters: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """The parameters that differentiable ones among these depend on."""
    alive = [output.sum() for output in outputs if isinstance(output, Tensor) and output.requires_grad]
    if not alive:
        return set()
    found = torch.autograd.grad(torch.stack(alive).sum(), parameters, allow_unused=True, retain_graph=True)
    return {value for value, gradient in zip(parameters, found, strict=True) if gradient is not None}
