"""The names that a configuration out of a run folder may hold.

A configuration names classes, and what a name stands for is imported and called. One that the user writes, and hands to
``pyrovae train --config``, may name any. One that was found in a run is read as data: it names classes of this library, of
``torch.nn`` and of ``torch.optim``, and others only where the caller trusts their module. What is not trusted is not
imported.

It is looked at twice. Before anything is parsed, every ``class_path`` is looked up (:mod:`~.settings`); and while it is
parsed and built, what imports for jsonargparse goes through the same look-up (:mod:`~.guarded_imports`), so that a name in
a place where none was expected meets it too.
"""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.experiment.jsonargparse_internals import import_object
from pyrovae.objectives import Objective

PACKAGES = ("pyrovae", "torch.nn", "torch.optim")
"""Packages from which a class may come."""
KINDS = (nn.Module, Data, Objective, Optimizer, LRScheduler)
"""Base classes, of one of which it must be a subclass."""


def find(name: str, source: Path, trust: Sequence[str] = ()) -> Any:
    """Find a class by its dotted name, among those that are imported or in a trusted module, which is imported.

    Raises:
        InputError: for a name of another module, and for what is no class, or one that is defined elsewhere.
        ValueError: for what is no dotted name, and so none to import.
    """
    if not isinstance(name, str) or "." not in name:
        raise ValueError(f"Expected a dot import path string: {name}")
    if is_within(name, trust):
        return _trusted(name, source, trust)
    module, _, attribute = name.rpartition(".")
    kind = getattr(sys.modules[module], attribute, None) if is_within(module, PACKAGES) and module in sys.modules else None
    if inspect.isclass(kind) and issubclass(kind, KINDS) and is_within(kind.__module__, (*PACKAGES, *trust)):
        return kind
    raise InputError(
        f"{source} names {name[:200]!r}, which is no class of pyrovae, torch.nn or torch.optim, and was not imported; where "
        f"you know who wrote it, allow it with trust=[{module[:200]!r}] (on the command line, --trust {module[:200]})"
    )


def is_within(name: str, modules: Sequence[str]) -> bool:
    """Whether a dotted name is that of one of the modules, or of something below it."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def require_modules(trust: Sequence[str]) -> None:
    """Raise an InputError unless ``trust`` is a list of names of modules."""
    for module in [trust] if isinstance(trust, str) else trust:
        if isinstance(trust, str) or not isinstance(module, str) or not all(map(str.isidentifier, module.split("."))):
            raise InputError(f"trust is {trust!r}; expected a list of the names of modules, such as ['my_priors']")


def _trusted(name: str, source: Path, trust: Sequence[str]) -> Any:
    found = import_object(name)
    home = getattr(found, "__module__", None) or type(found).__module__
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not is_within(home, (*PACKAGES, *trust)):
        raise InputError(
            f"{source} names {name[:200]!r}, which is no class or function of a trusted module, but of {home}; name it "
            "where it is defined, and trust that module"
        )
    return found
