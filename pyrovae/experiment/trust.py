"""What a configuration may name that comes out of a run folder.

A configuration names classes, and what a name stands for is imported and called. One that the user writes, and hands to
``pyrovae train --config``, may name any. One that was found in a run is read as data: it names classes of this library, of
``torch.nn`` and of ``torch.optim``, and others only where the caller trusts their module. What is not trusted is not
imported.

It is looked at twice. Before anything is parsed, every ``class_path`` is looked up; and while it is parsed and built, what
imports for jsonargparse goes through the same look-up, so that a name in a place where none was expected meets it too.
"""

import inspect
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import RLock, get_ident
from typing import Any
from unittest import mock

import yaml
from jsonargparse import ArgumentParser, Namespace, _loaders_dumpers, _typehints
from jsonargparse._util import import_object
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.objectives import Objective
from pyrovae.untrusted.plain_yaml import read_yaml, require_plain_yaml

PACKAGES = ("pyrovae", "torch.nn", "torch.optim")
"""Where a class may come from."""
KINDS = (nn.Module, Data, Objective, Optimizer, LRScheduler)
"""What it may be."""
_orders = {"config", "print_config", "help"}
"""Words that have the parser do something, where a setting would stand."""
_one_at_a_time = RLock()


def read_settings(text: str, source: Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that a text in YAML holds, with every class in them looked up.

    Args:
        text: the configuration.
        source: the file that it is from, for the message.
        trust: modules, with all below them, whose classes may be named too.

    Raises:
        InputError: for a text that holds more than settings, and for a class of a module that is not trusted.
    """
    require_modules(trust)
    try:
        settings = read_yaml(text)
    except ValueError as error:
        raise InputError(
            f"{source} does not hold settings ({error}); expected what `pyrovae train` wrote: copy the run again"
        ) from error
    if not isinstance(settings, dict) or _orders & settings.keys():
        raise InputError(f"{source} does not hold settings; expected what `pyrovae train` wrote: copy the run again")
    _look_at(settings, source, trust)
    return settings


def parse_settings(
    parser: ArgumentParser, settings: dict[str, Any], source: Path, trust: Sequence[str] = (), argv: Sequence[str] = ()
) -> Namespace:
    """Parse the settings of a run, which words of a command line override.

    Raises:
        InputError: for settings that the parser does not accept, and for a class of a module that is not trusted.
        ArgumentError: for words that it does not accept.
    """
    with guarded(source, trust):
        try:
            parsed = parser.parse_object(settings)
        except (Exception, SystemExit) as error:  # what no one wrote ends in errors of a dozen types
            raise InputError(
                f"{source} cannot be used ({_one_line(error)}); expected what `pyrovae train` wrote: copy the run again"
            ) from error
        return parser.parse_args([*argv], namespace=parsed) if argv else parsed


@contextmanager
def guarded(source: Path, trust: Sequence[str] = ()) -> Iterator[None]:
    """While this is entered, jsonargparse imports what :func:`find` does, and reads strings as YAML within its limits.

    A refusal is raised at the end also where someone in between took it for one of several possibilities.

    Raises:
        InputError: for a name that :func:`find` refuses.
    """
    refused: list[InputError] = []
    thread, active = get_ident(), True

    def guard(name: str, check_path: bool = True) -> Any:
        if not (check_path and active and thread == get_ident()):  # the name is from a signature, or from another's settings
            return import_object(name, check_path)
        try:
            return find(name, source, trust)
        except InputError as error:
            refused.append(error)
            raise

    with _one_at_a_time, ExitStack() as stack:
        for module in _importers():
            stack.enter_context(mock.patch.object(module, "import_object", guard))
        stack.enter_context(mock.patch.object(_typehints, "is_importable_module_path", return_value=False))
        stack.enter_context(mock.patch.dict(_loaders_dumpers.loaders, yaml=_load_within_limits))
        try:
            yield
        finally:
            active = False  # for whoever was first imported meanwhile, and took the guard for what it stands for
            if refused:
                raise refused[0]


def find(name: str, source: Path, trust: Sequence[str] = ()) -> Any:
    """The class of that name. One of ours is taken from what is already imported, one that is trusted is imported.

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
    """Raise an InputError for what are no names of modules."""
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


def _look_at(value: Any, source: Path, trust: Sequence[str], setting: bool = True) -> None:
    """Look up every class that is named, and refuse words and numbers that settings do not have."""
    if isinstance(value, dict):
        spec = "class_path" in value
        for key, inner in value.items():
            _look_at_key(key, source, setting or spec)
            _look_at(inner, source, trust, (setting or spec) and (spec or "init_args" not in value))
        if spec:
            _look_up(value["class_path"], source, trust)
    elif isinstance(value, list):
        for inner in value:
            _look_at(inner, source, trust, setting)
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise InputError(
            f"{source} holds a number of {value.bit_length()} bits; expected 64 at the most: copy the run again"
        )


def _look_up(name: Any, source: Path, trust: Sequence[str]) -> None:
    """A name with a dot; one without is looked for among the classes of its place, and then comes upon the guard."""
    if not isinstance(name, str):
        raise InputError(f"{source} has {str(name)[:200]!r} in the place of a class; expected its name: copy the run again")
    if "." in name and not is_within(name, trust):
        find(name, source, trust)


def _look_at_key(key: Any, source: Path, setting: bool) -> None:
    word = isinstance(key, str) and not key.startswith("__") and (key.isidentifier() or not setting)
    number = isinstance(key, int) and abs(key) < 2**64  # of a mapping; in the place of a name the parser refuses it
    if not (word or number):
        raise InputError(
            f"{source} has {str(key)[:200]!r} in the place of a setting's name; expected what `pyrovae train` wrote: copy "
            "the run again"
        )


def _importers() -> list[Any]:
    """The modules that import what a configuration names."""
    return [
        module
        for name, module in sys.modules.copy().items()  # of a copy: another thread may be importing
        if is_within(name, ("jsonargparse", "pyrovae.training"))
        and name != __name__
        and vars(module).get("import_object") is import_object
    ]


def _load_within_limits(text: str) -> Any:
    try:
        require_plain_yaml(text)
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error
    return _loaders_dumpers.yaml_load(text)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error if isinstance(error, ArgumentError | ValueError) else repr(error)}".split())[:1000]
