"""Private names of dependencies are used in one file each, and nowhere else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyrovae

PACKAGE = Path(pyrovae.__file__).parent
FILES = {
    "internals/torch_internals.py",
    "internals/pyro_internals.py",
    "compiling/inductor_internals.py",
    "experiment/jsonargparse_internals.py",
}
PRIVATE = re.compile(r"_(?!_)[A-Za-z]\w*")
OF_NAMED_TUPLES = {"_asdict", "_replace", "_fields"}
"""Names that Python documents in spite of their underscore."""
TORCH = re.compile(r"(torch|pyro|jsonargparse|zuko)(\.\w+)*\._\w+.*")
"""A module of theirs as a string, as in ``sys.modules``."""


def private_names(source: str) -> Iterator[str]:
    """The private names in a file that are not defined there."""
    tree = ast.parse(source)
    own = defined(tree)
    for node in ast.walk(tree):
        yield from (name for name in named(node) if is_private(name) and name not in own)


def named(node: ast.AST) -> list[str]:
    """The names that a piece of a program uses of others."""
    if isinstance(node, ast.Attribute):
        return [] if is_itself(node.value) else [node.attr]
    if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("pyrovae"):
        return [*str(node.module).split("."), *(alias.name for alias in node.names)]
    if isinstance(node, ast.Import):
        return [part for alias in node.names for part in alias.name.split(".")]
    if isinstance(node, ast.Call):
        return [*(str(keyword.arg) for keyword in node.keywords), *looked_up(node)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and TORCH.fullmatch(node.value):
        return [part for part in node.value.split(".") if is_private(part)]
    return []


def looked_up(call: ast.Call) -> list[str]:
    """The attribute that ``getattr`` and the like are asked for."""
    function = call.func.id if isinstance(call.func, ast.Name) else ""
    name = call.args[1] if function in ("getattr", "hasattr", "setattr") else None
    return [name.value] if isinstance(name, ast.Constant) else []


def is_itself(value: ast.AST) -> bool:
    """Whether it is ``self``, ``cls`` or ``super()``, whose private names are a class's own or were handed down to it."""
    inherited = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "super"
    return inherited or (isinstance(value, ast.Name) and value.id in ("self", "cls"))


def is_private(name: str) -> bool:
    return PRIVATE.fullmatch(name) is not None and name not in OF_NAMED_TUPLES


def defined(tree: ast.AST) -> set[str]:
    """The functions, classes and attributes that a file defines, without those that torch's modules have too."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_itself(node.value)
    }
    fields = {
        node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return (functions | stored | fields) - {"_buffers", "_parameters", "_modules"}


@pytest.mark.parametrize(
    "path", [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))], ids=lambda path: path.as_posix()
)
def test_only_the_files_of_internals_use_private_names(path):
    if path.as_posix() in FILES:
        return
    found = sorted(set(private_names((PACKAGE / path).read_text())))
    assert not found, f"{path} uses {found}; a private name of a dependency belongs in one of {sorted(FILES)}"


def test_the_files_of_internals_do_use_them():
    assert all([*private_names((PACKAGE / name).read_text())] for name in FILES)


@pytest.mark.parametrize(
    "line",
    [
        "import torch._dynamo",
        "from torch._inductor import ir",
        "from pyro.poutine.runtime import _PYRO_STACK",
        "buffers = part._buffers",
        "make(function, _fake=True)",
        "getattr(function, '_schema', None)",
        "'torch._dynamo' in modules",
    ],
)
def test_what_is_a_private_name(line):
    assert [*private_names(line)]
    assert not [*private_names("self._own = other._own\npoint._replace(x=1)\nsuper()._pyro_sample(msg)")]
