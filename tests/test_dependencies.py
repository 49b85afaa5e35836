"""What is imported is declared, and what is declared is imported."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = {"pil": "pillow", "pyro": "pyro-ppl", "sklearn": "scikit-learn", "yaml": "pyyaml"}
UNIMPORTED = {"h5netcdf"}
"""What ArviZ reads and writes netCDF with."""


def imported() -> set[str]:
    """The distributions that the package imports, by their names."""
    found: set[str] = set()
    for path in (ROOT / "pyrovae").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    names = {name.lower() for name in found - set(sys.stdlib_module_names) - {"pyrovae"}}
    return {NAMES.get(name, name) for name in names}


def test_dependencies_are_declared_with_their_oldest_version():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    parts = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?(>=[\d.]+)(,<[\d.]+)?", each) for each in declared]
    assert all(parts), f"no oldest version: {[each for each, part in zip(declared, parts, strict=True) if not part]}"
    assert {part[1] for part in parts if part} - UNIMPORTED == imported()
