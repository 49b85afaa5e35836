"""What is imported is declared, and what is declared is imported; what the tests import, too."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = {"pil": "pillow", "pyro": "pyro-ppl", "sklearn": "scikit-learn", "yaml": "pyyaml"}
UNIMPORTED = {"h5netcdf"}
"""What ArviZ reads and writes netCDF with."""
BROUGHT = {"jupyter_client": "nbclient", "mpmath": "torch"}
"""What comes with a distribution that is declared."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions(nodes: Iterable[ast.AST]) -> set[str]:
    """The distributions that these statements import, by their names."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    names = {name.lower() for name in found - set(sys.stdlib_module_names) - {"pyrovae"}}
    return {NAMES.get(name, name) for name in names}


def parsed(folder: str) -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]


def declared(requirements: list[str]) -> set[str]:
    """The names of distributions, each with its oldest version."""
    parts = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?(>=[\d.]+)(,<[\d.]+)?", each) for each in requirements]
    assert all(parts), f"no oldest version: {[each for each, part in zip(requirements, parts, strict=True) if not part]}"
    return {part[1] for part in parts if part}


def test_dependencies_are_declared_with_their_oldest_version():
    found = distributions(node for module in parsed("pyrovae") for node in ast.walk(module))
    assert declared(PROJECT["dependencies"]) - UNIMPORTED == found


def test_the_tests_need_nothing_but_what_is_declared_for_them():
    """Where a file imports it; what a test imports by itself is for those who have it."""
    local = {path.stem for path in (ROOT / "tests").iterdir()} | {"tests", "_pytest"}
    found = distributions(node for module in parsed("tests") for node in module.body) - local
    assert {BROUGHT.get(name, name) for name in found} <= declared(
        PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    )
