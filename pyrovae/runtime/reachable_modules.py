"""The networks that can be reached from a program: what a function closes over, names, or is a method of."""

import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

FARTHEST = 20_000
"""Largest number of objects that are visited, the nearest first; networks lie close to the programs that call them."""
_LEAVES = (str, bytes, bytearray, int, float, complex, Tensor, np.ndarray, np.generic, type(None), CodeType)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_LIBRARIES = {*sys.stdlib_module_names, "torch", "pyro", "pyrovae", "numpy", "scipy"}
"""Packages whose own functions and classes hold no network of a user's."""


def modules_reached(*programs: Any) -> list[nn.Module]:
    """The modules that programs are, or that can be found from them, with all their submodules; each once.

    What is followed: partial arguments, methods and their objects, what a function closes over, has for defaults and
    wraps, the global names in its code and in the methods of a class, attributes, and the items of containers.
    """
    found = [each for each in _reached(programs) if _is(each, nn.Module)]
    return list(dict.fromkeys(part for module in found for part in module.modules()))


def _reached(programs: Any) -> Iterator[Any]:
    """Every object that can be reached, the nearest first."""
    queue, seen = deque[Any](programs), {}
    while queue and len(seen) < FARTHEST:
        each = queue.popleft()
        if id(each) not in seen:
            seen[id(each)] = each  # what is kept alive keeps its number
            yield each
            queue.extend(other for other in islice(_beside(each), FARTHEST) if _leads_on(other))


def _is(each: Any, *kinds: type) -> bool:
    """Whether an object is of these types, without running any code of its own, as ``isinstance`` may."""
    return issubclass(type(each), kinds)


def _leads_on(each: Any) -> bool:
    return not _is(each, *_LEAVES) and not (_is(each, *_CONTAINERS) and len(each) == 0)


def _beside(each: Any) -> Iterator[Any]:
    """The objects that an object refers to directly."""
    if _is(each, dict):
        yield from dict.values(each)
    elif _is(each, *_CONTAINERS):
        yield from each
    elif _is(each, partial):
        yield from (each.func, each.args, each.keywords)
    elif _is(each, MethodType):
        yield from (each.__self__, each.__func__)
    elif _is(each, staticmethod, classmethod):
        yield each.__func__
    elif _is(each, property):
        yield each.fget
    elif _is(each, FunctionType):
        yield from _of_function(each)
    elif _is(each, type):
        yield from () if _is_of_library(each.__module__) else vars(each).values()
    elif not _is(each, ModuleType):
        yield from (*_slots(each), *_attributes(each).values(), *type(each).__mro__)


def _attributes(each: Any) -> dict[str, Any]:
    try:
        return object.__getattribute__(each, "__dict__")
    except AttributeError:
        return {}


def _slots(each: Any) -> Iterator[Any]:
    """The values of an object's ``__slots__``."""
    classes = [base for base in type(each).__mro__ if not _is_of_library(base.__module__)]
    for slot in (value for base in classes for value in vars(base).values() if _is(value, MemberDescriptorType)):
        try:
            yield slot.__get__(each)
        except AttributeError:  # it has no value yet
            continue


def _of_function(function: FunctionType) -> Iterator[Any]:
    yield from (function.__defaults__, function.__kwdefaults__, vars(function))
    yield from (_content(cell) for cell in function.__closure__ or ())
    if not _is_of_library(function.__globals__.get("__name__")):
        yield from _named(function.__globals__, _names(function.__code__))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None


def _names(code: CodeType) -> set[str]:
    """The names of globals and attributes in a function's code, and in that of the functions within it."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _named(namespace: dict[str, Any], names: set[str]) -> Iterator[Any]:
    """The values of names in a namespace, and in the Python modules among these values."""
    for name in names & namespace.keys():
        value = namespace[name]
        if not isinstance(value, ModuleType):
            yield value
        elif not _is_of_library(value.__name__) and namespace is not vars(value):
            yield from _named(vars(value), names - {name})


def _is_of_library(name: Any) -> bool:
    return str(name).partition(".")[0] in _LIBRARIES
