"""Private names of jsonargparse, each behind a function that says what it is for; no other file uses one.

``tests/experiment/test_jsonargparse_internals.py`` asserts that each exists and does what is relied on here, so that a
release of jsonargparse that changes one says which.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from jsonargparse import ArgumentParser, _typehints
from jsonargparse._util import import_object as import_object


@contextmanager
def importing_by(find: Callable[..., Any]) -> Iterator[None]:
    """Have jsonargparse look up every dotted name by ``find(name, check_path=True)`` and import no module by its bare name.

    A name is looked up in many of its modules, each of which holds ``import_object`` under that name.
    """
    with ExitStack() as stack:
        for module in _importers():
            stack.enter_context(mock.patch.object(module, "import_object", find))
        stack.enter_context(mock.patch.object(_typehints, "is_importable_module_path", return_value=False))
        yield


def _importers() -> list[Any]:
    return [
        module
        for name, module in sys.modules.copy().items()  # of a copy: another thread may be importing
        if (name == "jsonargparse" or name.startswith("jsonargparse."))
        and vars(module).get("import_object") is import_object
    ]


@contextmanager
def defaults_left_behind() -> Iterator[None]:
    """Have a class that replaces another begin with its own defaults, and not with those of its predecessor."""
    hand_on = _typehints.discard_init_args_on_class_path_change

    def discard(action: Any, before: Any, now: Any) -> None:
        hand_on(action, before, now)
        if before and before.get("init_args") and before["class_path"] != now["class_path"]:
            former: Any = _typehints.import_object(before["class_path"])  # pyright: ignore[reportPrivateImportUsage]
            _drop_defaults(before["init_args"], inspect.signature(former).parameters)

    with mock.patch.object(_typehints, "discard_init_args_on_class_path_change", discard):
        yield


def _drop_defaults(arguments: Any, parameters: Any) -> None:
    for name, value in [*arguments.items(branches=True, nested=False)]:
        if name in parameters and is_same(parameters[name].default, value):
            arguments.pop(name)


def is_same(default: Any, value: Any) -> bool:
    """Whether a value of a configuration is a default; YAML has lists where Python has tuples."""
    return (list(default) if isinstance(default, tuple) else default) == (list(value) if isinstance(value, tuple) else value)


def destinations(parser: ArgumentParser) -> set[str]:
    """The names under which a parser stores its options."""
    return {action.dest for action in parser._actions}
