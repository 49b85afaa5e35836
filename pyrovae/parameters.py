r"""Which parameters a pair of programs owns, whatever Pyro's global store holds beside them.

Pyro keeps one global store, and two unrelated modules that both own a ``scale`` share one entry of it: the second is
overwritten by the first. Here a pair runs in a store of its own:

- modules keep their own ``Parameter`` objects, model and guide apart;
- ``pyro.param`` and ``pyro.module`` statements of plain functions keep theirs in a state that lasts as long as the pair
  does. It begins with the values that the user's store holds (trained by ``SVI``, say) and never writes to that store.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

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
    return _trained.get(_owner(model), {}).get(_owner(guide))


def start_training(model: Program, guide: Program) -> State:
    """The state that training this pair changes: begun, on the first call, with copies of the user's values."""
    by_guide = _trained.setdefault(_owner(model), WeakKeyDictionary())
    if _owner(guide) not in by_guide:
        user = _user_state(model, guide)
        params = {name: nn.Parameter(value.detach().clone()) for name, value in user["params"].items()}
        by_guide[_owner(guide)] = {"params": params, "constraints": user["constraints"]}
    return by_guide[_owner(guide)]


def _owner(program: Program) -> Any:
    return getattr(program, "__self__", program)


def _user_state(model: Program, guide: Program) -> State:
    """The user's values of plain ``pyro.param`` statements; what a module owns is never taken from the store."""
    store = pyro.get_param_store().get_state()
    owned = _names(model) | _names(guide)
    names = [name for name in store["params"] if "$$$" not in name and name not in owned]
    return {part: {name: values[name] for name in names} for part, values in store.items()}  # pyright: ignore


def _names(program: Program) -> set[str]:
    """The names under which Pyro enters a module's own parameters into a store."""
    module = _owner(program)
    if not isinstance(module, PyroModule):
        return set()
    prefix = f"{module._pyro_name}." if module._pyro_name else ""
    return {prefix + name.removesuffix("_unconstrained") for name, _ in module.named_parameters()}


def _keeping_its_own(program: Program) -> Program:
    """The program, which on leaving takes its modules' entries out of the store."""
    module = _owner(program)
    if not isinstance(module, nn.Module):
        return program

    def run(*args: Any, **kwargs: Any) -> Any:
        result = program(*args, **kwargs)
        _remove(set(module.parameters()))
        return result

    return run


def _remove(parameters: set[Tensor]) -> None:
    store = pyro.get_param_store()
    for name in [name for name, value in store.named_parameters() if value in parameters]:
        del store[name]


@contextmanager
def same_random_numbers(*tensors: Any) -> Iterator[None]:
    """Leave every random generator as it was found: the CPU's, and those of the CUDA devices of ``tensors``."""
    devices = {value.device for value in tensors if isinstance(value, Tensor) and value.is_cuda}
    with torch.random.fork_rng(list(devices)):
        yield
