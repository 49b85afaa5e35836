"""Sizes of functions, classes and files, as a reader meets them; nothing is imported.

    python -m benchmarks.house pyrovae                  one package, and what in it is long
    python -m benchmarks.house pyrovae CHECKOUT/zuko    several, a column each

The body of a function is its lines from the first statement after the docstring to the last; nested functions count for
themselves and for the one around them. Of arguments, ``self`` and ``cls`` are not counted. Tests are left out.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Settings, table

LONGEST_FILE, LONGEST_CLASS, LONGEST_FUNCTION = 250, 150, 30
"""Lines beyond which a file, a class or the body of a function wants splitting."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Size:
    """The lines of something that has a name, and, of a function, its number of arguments."""

    name: str
    lines: int
    arguments: int = 0


@dataclass(frozen=True)
class House:
    """The sizes of all files, classes and functions of a package."""

    files: list[Size]
    classes: list[Size]
    functions: list[Size]

    def columns(self) -> dict[str, str]:
        """What is compared between packages, by name."""
        bodies = [each.lines for each in self.functions]
        arguments = [each.arguments for each in self.functions]
        return {
            "files": f"{len(self.files):,}",
            "lines": f"{sum(each.lines for each in self.files):,}",
            "body of a function, median": f"{np.median(bodies):.0f}",
            "body of a function, 90th percentile": f"{np.percentile(bodies, 90):.0f}",
            "arguments, 90th percentile": f"{np.percentile(arguments, 90):.0f}",
        } | {name: f"{len(each):,}" for name, each in self.long().items()}

    def long(self) -> dict[str, list[Size]]:
        """What is longer than it should be, longest first."""
        kinds = {
            f"files over {LONGEST_FILE} lines": (self.files, LONGEST_FILE),
            f"classes over {LONGEST_CLASS} lines": (self.classes, LONGEST_CLASS),
            f"functions over {LONGEST_FUNCTION} lines": (self.functions, LONGEST_FUNCTION),
        }
        return {name: _over(sizes, most) for name, (sizes, most) in kinds.items()}


def measure(package: Path) -> House:
    """The sizes of a package's files, and of what is in them."""
    house = House([], [], [])
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if {"test", "tests"} & {*place.parts} or place.name.startswith("test_"):
            continue
        text = path.read_text()
        house.files.append(Size(str(place), len(text.splitlines())))
        house.classes.extend(_classes(ast.parse(text), str(place)))
        house.functions.extend(_functions(ast.parse(text), str(place)))
    return house


def _classes(tree: ast.Module, place: str) -> Iterator[Size]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield Size(f"{place}:{node.name}", (node.end_lineno or 0) - node.lineno + 1)


def _functions(tree: ast.Module, place: str) -> Iterator[Size]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield Size(f"{place}:{node.name}", _body(node), _arguments(node.args))


def _body(function: Function) -> int:
    body = function.body if ast.get_docstring(function) is None else function.body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _arguments(found: ast.arguments) -> int:
    names = [each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + bool(found.vararg) + bool(found.kwarg)


def _over(sizes: Sequence[Size], most: int) -> list[Size]:
    return sorted((each for each in sizes if each.lines > most), key=lambda each: -each.lines)


def main(folders: Sequence[str]) -> None:
    """Print a column a package, and, of a single one, what in it is long."""
    houses = {folder: measure(Path(folder)) for folder in folders or ["pyrovae"]}
    columns = {folder: house.columns() for folder, house in houses.items()}
    rows = [[name, *(column[name] for column in columns.values())] for name in next(iter(columns.values()))]
    table(Settings(torch.device("cpu"), markdown=True), "Sizes", ["", *(Path(folder).name for folder in houses)], rows)
    if len(houses) == 1:
        for kind, sizes in next(iter(houses.values())).long().items():
            print(f"\n{kind}: {', '.join(f'{each.name} {each.lines}' for each in sizes) or 'none'}")


if __name__ == "__main__":
    main(sys.argv[1:])
