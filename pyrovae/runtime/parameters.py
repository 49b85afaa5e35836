r"""The parameters that a pair of programs owns, whatever Pyro's global store holds beside them.

Pyro keeps one global store, and two unrelated modules that both own a ``scale`` share one entry of it: the second is
overwritten by the first. Here

- modules keep their own ``Parameter`` objects, model and guide apart, and never enter the global store;
- ``pyro.param`` statements outside modules are entries of the global store, as everywhere in Pyro: what ``SVI`` trained is
  what we see, and the reverse; two programs that use one name share the value.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from threading import get_ident
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoCallable, AutoGuide, AutoGuideList, AutoMessenger
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae.internals.pyro_internals import UNCONSTRAINED, name_in_store, stored_constraints
from pyrovae.internals.torch_internals import has_imported_dynamo
from pyrovae.runtime.arguments import devices

Program = Callable[..., Any]
State = dict[str, dict[str, Any]]
"""State of a store in Pyro's form: unconstrained values under ``params``, constraints under ``constraints``."""


@contextmanager
def seeing(see: Callable[[nn.Module], Any], *, eager: bool = True) -> Iterator[None]:
    """Call ``see`` with each module that this thread calls meanwhile, before it runs; a compiled module counts as one.

    Args:
        see: is given the module.
        eager: whether what torch compiles runs as it was written meanwhile.
    """
    thread = get_ident()

    def hook(module: nn.Module, _: Any) -> None:
        if not torch.compiler.is_compiling() and get_ident() == thread:
            see(module)

    with ExitStack() as stack:
        if has_imported_dynamo():
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Using `torch.compile.*when there are global hooks", UserWarning)  # harmless
            stack.enter_context(torch.compiler.set_stance("force_eager") if eager else nullcontext())
        stack.callback(register_module_forward_pre_hook(hook).remove)
        yield


@contextmanager
def parameter_store(model: Program, guide: Program, state: State | None = None) -> Iterator[tuple[Program, Program]]:
    """Open a store for a pair; yields the two programs to run in it.

    It begins with ``state``, by default the entries of the global store that no module owns. Entries that the programs'
    ``pyro.param`` statements make are added to the global store when it closes, unless an exception closes it.
    """
    store = pyro.get_param_store()
    outside: Any = store.get_state()
    inside: Any = _filtered(outside, lambda name, _: not _of_module(name)) if state is None else _filtered(state)
    with store.scope(inside):
        yield keeping_its_own(model), keeping_its_own(guide)
    added: Any = _filtered(inside, lambda name, _: not _of_module(name) and name not in outside["params"])
    store.set_state(added)


def as_parameters(names: Iterable[str]) -> State:
    """Turn the values of entries of the global store into torch ``Parameter`` objects, and return these entries."""
    store = pyro.get_param_store()
    state: Any = store.get_state()
    names = [name for name in names if name in state["params"]]
    for name in names:
        if not isinstance(state["params"][name], nn.Parameter):
            state["params"][name] = nn.Parameter(state["params"][name].detach().clone())
    store.clear()
    store.set_state(state)
    return _filtered(state, lambda name, _: name in names)


def owner(program: Program) -> Any:
    """The module, object or function that a program runs, under Pyro's handlers, partial arguments and methods."""
    while isinstance(program, partial) or (hasattr(program, "__wrapped__") and not hasattr(program, "__self__")):
        if not isinstance(program, partial):
            program = program.__wrapped__  # pyright: ignore
            continue
        kept = program.func is _run_keeping_its_own
        handled = not kept and program.args and isinstance(program.args[0], Messenger)
        program = program.args[1] if handled else program.args[0] if kept else program.func
    return getattr(program, "__self__", program)


def keeps_places(guide: Program) -> bool:
    """Whether a guide is automatic and has parameters for each place in the batch, so that it is not amortized."""
    guide = owner(guide)
    if isinstance(guide, AutoMessenger):
        return not guide.amortized_plates
    if isinstance(guide, AutoGuideList):
        return any(map(keeps_places, guide))
    return isinstance(guide, AutoGuide) and not isinstance(guide, AutoCallable)


def _filtered(state: State, keep: Callable[[str, Tensor], bool] = lambda *_: True) -> State:
    params = {name: value for name, value in state["params"].items() if keep(name, value)}
    return {"params": params, "constraints": {name: state["constraints"][name] for name in params}}


def _of_module(name: str) -> bool:
    """Whether ``pyro.module`` made the entry, whose value the module holds itself."""
    return "$$$" in name


def _names(module: nn.Module) -> set[str]:
    """The names under which Pyro enters a module's own parameters into a store."""
    return {name.removesuffix(UNCONSTRAINED) for name, _ in _named(module)} if isinstance(module, PyroModule) else set()


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return module.named_parameters(prefix=name_in_store(module))


def keeping_its_own(program: Program) -> Program:
    """Isolate a program in the store: no other entries under its modules' names, and its own go when it ends."""
    return partial(_run_keeping_its_own, program) if isinstance(owner(program), nn.Module) else program


def _run_keeping_its_own(program: Program, *args: Any, **kwargs: Any) -> Any:
    module = owner(program)
    names, parameters = _names(module), set(module.parameters())
    before = _entries()
    _replace(_filtered(before, lambda name, _: name not in names))
    with _frozen_stay_frozen(module):
        result = program(*args, **kwargs)
    after = _filtered(
        _entries(),
        lambda name, value: value not in parameters and name.replace("$$$", ".") not in names,
    )
    hidden = _filtered(before, lambda name, _: name in names)
    _replace({part: {**after[part], **hidden[part]} for part in after})
    return result


@contextmanager
def store_as_it_was() -> Iterator[None]:
    """Restore Pyro's store on leaving, whatever happens meanwhile."""
    before = _entries()
    try:
        yield
    finally:
        _replace(before)


def _entries() -> State:
    """The entries of the store; ``get_state`` would detach the values from their unconstrained forms."""
    return {"params": dict(pyro.get_param_store().named_parameters()), "constraints": stored_constraints()}


def _replace(state: State) -> None:
    store = pyro.get_param_store()
    store.clear()
    store.set_state(state)  # pyright: ignore[reportArgumentType]


@contextmanager
def _frozen_stay_frozen(module: nn.Module) -> Iterator[None]:
    """Put parameters without ``requires_grad`` into the store, since Pyro, when it enters them itself, sets the flag."""
    frozen = {name: value for name, value in _named(module) if not value.requires_grad}
    if not frozen:
        yield
        return
    plain = {name: value for name, value in frozen.items() if not name.endswith(UNCONSTRAINED)}
    params: dict[str, Tensor] = {**plain}
    pyro.get_param_store().set_state({"params": params, "constraints": dict.fromkeys(plain, constraints.real)})
    with unregistered_is_meant():
        yield


@contextmanager
def unregistered_is_meant() -> Iterator[None]:
    """Let ``pyro.module`` leave out values without ``requires_grad`` in silence."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".* was not registered in the param store because requires_grad=False", UserWarning
        )
        yield


@contextmanager
def same_random_numbers(*owners: Any) -> Iterator[None]:
    """Restore random generators on leaving: the CPU's, and those of the CUDA devices among or of ``owners``."""
    with torch.random.fork_rng([device for device in devices(*owners) if device.type == "cuda"]):
        yield


def is_dense(tensor: Tensor) -> bool:
    """Return whether the numbers of a tensor lie side by side in memory, in whatever order, and each is there once."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) == tensor.numel()
