r"""Which parameters a pair of programs owns, whatever Pyro's global store holds beside them.

Pyro keeps one global store, and two unrelated modules that both own a ``scale`` share one entry of it: the second is
overwritten by the first. Here a pair runs in a store of its own:

- modules keep their own ``Parameter`` objects, model and guide apart;
- ``pyro.param`` and ``pyro.module`` statements of plain functions keep theirs in a state that lasts as long as the pair
  does. It begins with the values that the user's store holds (trained by ``SVI``, say) and never writes to that store.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints

_CONSTRAINED = "_unconstrained"
"""How PyroModule ends the name of the free value behind a parameter with a constraint."""

Program = Callable[..., Any]
State = dict[str, dict[str, Any]]
"""Pyro's form: unconstrained values under ``params``, their constraints under ``constraints``, both by name."""

_trained: WeakKeyDictionary[Any, WeakKeyDictionary[Any, State]] = WeakKeyDictionary()


@contextmanager
def parameter_store(model: Program, guide: Program, state: State | None = None) -> Iterator[tuple[Program, Program]]:
    """Open the store of a pair; yields the two programs to run in it.

    ``state`` is read at the start and holds what the programs' ``pyro.param`` statements left at the end; by default it
    is what training left for this pair, or else what the user's store holds.
    """
    if state is None:
        state = dict(trained_state(model, guide) or _user_state(model, guide))
    with pyro.get_param_store().scope(state):  # pyright: ignore[reportArgumentType]
        yield _keeping_its_own(model), _keeping_its_own(guide)


def trained_state(model: Program, guide: Program) -> State | None:
    """What ``pyro.param`` statements of this pair hold since it was trained here, or ``None`` before that."""
    return _trained.get(owner(model), {}).get(owner(guide))


def start_training(model: Program, guide: Program) -> State:
    """The state that training this pair changes: begun, on the first call, with copies of the user's values."""
    by_guide = _trained.setdefault(owner(model), WeakKeyDictionary())
    if owner(guide) not in by_guide:
        user = _user_state(model, guide)
        params = {name: nn.Parameter(value.detach().clone()) for name, value in user["params"].items()}
        by_guide[owner(guide)] = {"params": params, "constraints": user["constraints"]}
    return by_guide[owner(guide)]


def owner(program: Program) -> Any:
    """What a program runs, under Pyro's handlers, partial arguments and methods: a module, an object or a function."""
    while isinstance(program, partial):
        handled = program.args and isinstance(program.args[0], Messenger)
        program = program.args[1] if handled else program.func
    return getattr(program, "__self__", program)


def _user_state(model: Program, guide: Program) -> State:
    """The user's values of plain ``pyro.param`` statements; what a module owns is never taken from the store."""
    store = pyro.get_param_store().get_state()
    owned = _names(model) | _names(guide)
    names = [name for name in store["params"] if "$$$" not in name and name not in owned]
    return {part: {name: values[name] for name in names} for part, values in store.items()}  # pyright: ignore


def _names(program: Program) -> set[str]:
    """The names under which Pyro enters a module's own parameters into a store."""
    module = owner(program)
    if not isinstance(module, PyroModule):
        return set()
    return {name.removesuffix(_CONSTRAINED) for name, _ in _named(module)}


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    prefix = getattr(module, "_pyro_name", "")
    return module.named_parameters(prefix=prefix)


def _keeping_its_own(program: Program) -> Program:
    """The program, which on leaving takes its modules' entries out of the store."""
    module = owner(program)
    if not isinstance(module, nn.Module):
        return program

    def run(*args: Any, **kwargs: Any) -> Any:
        store = pyro.get_param_store()
        before = set(store)
        with _frozen_stay_frozen(module):
            result = program(*args, **kwargs)
        for name in _entries(module, before):
            del store[name]
        return result

    return run


@contextmanager
def _frozen_stay_frozen(module: nn.Module) -> Iterator[None]:
    """Put parameters without ``requires_grad`` into the store, since Pyro, when it enters them itself, sets the flag."""
    frozen = {name: value for name, value in _named(module) if not value.requires_grad}
    if not frozen:
        yield
        return
    plain = {name: value for name, value in frozen.items() if not name.endswith(_CONSTRAINED)}
    params: dict[str, Tensor] = {**plain}
    pyro.get_param_store().set_state({"params": params, "constraints": dict.fromkeys(plain, constraints.real)})
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".* was not registered in the param store because requires_grad=False", UserWarning
        )
        yield


def _entries(module: nn.Module, before: set[str]) -> list[str]:
    """What a module has entered into the store: its parameters and, of those that are not contiguous, Pyro's copies."""
    parameters, names = set(module.parameters()), _names(module)
    return [
        name
        for name, value in pyro.get_param_store().named_parameters()
        if value in parameters or (name not in before and name.replace("$$$", ".") in names)
    ]


@contextmanager
def same_random_numbers(*owners: Any) -> Iterator[None]:
    """Leave every random generator as it was found: the CPU's, and those of the CUDA devices among or of ``owners``."""
    devices = {owner if isinstance(owner, torch.device) else getattr(owner, "device", None) for owner in owners}
    with torch.random.fork_rng([device for device in devices if isinstance(device, torch.device) and device.type == "cuda"]):
        yield
