"""What an error says is written once, and no test depends on how it is phrased."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyrovae

package = Path(pyrovae.__file__).parent
tests = Path(__file__).parent
CLAUSE = 60
"""Characters of a clause that is no coincidence."""
PROSE = re.compile(r"(?<![\w.$-])[a-z]+ [a-z]+ [a-z]+")
"""Three words of a sentence."""


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts in a file that are no docstrings, with ``{}`` for what is put into them."""
    bodies = (body for node in ast.walk(tree) if isinstance(body := getattr(node, "body", None), list))
    docstrings = {id(each.value) for body in bodies for each in body if isinstance(each, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) not in docstrings | parts and (text := _text(node)):
            yield node.lineno, " ".join(text.split())  # pyright: ignore


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "{}" if isinstance(node, ast.FormattedValue) else ""


def repeated(folder: Path, length: int) -> dict[str, set[str]]:
    """The clauses of this length that stand in two texts below a folder, and where."""
    places = defaultdict(set)
    for path in sorted(folder.rglob("*.py")):
        for line, text in literals(ast.parse(path.read_text(encoding="utf-8"))):
            for start in range(len(text) - length + 1):
                places[text[start : start + length]].add(f"{path.relative_to(folder)}:{line}")
    return {clause: found for clause, found in places.items() if len(found) > 1}


def test_no_clause_is_written_twice():
    assert not repeated(package, CLAUSE)


def test_a_clause_that_is_written_twice_is_found(tmp_path):
    clause = "the same clause of a message, of sixty characters and a few more"
    (tmp_path / "one.py").write_text(f'def f(x):\n    """{clause}"""\n    raise ValueError(f"{{x}}: {clause}")')
    assert not repeated(tmp_path, CLAUSE)
    (tmp_path / "other.py").write_text(f'REMEDY = (\n    "{clause[:30]}"\n    "{clause[30:]}"\n)')
    assert {frozenset(found) for found in repeated(tmp_path, CLAUSE).values()} == {frozenset({"one.py:3", "other.py:2"})}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))


def prose(path: Path) -> list[str]:
    """What a test expects of a message beside words: a sentence, or a pattern of one."""
    found = []
    for call in calls(path):
        name = ast.unparse(call.func)
        patterns = [each.value for each in call.keywords if each.arg == "match"] if name.startswith("pytest.") else []
        if patterns and "InputError" in ast.unparse(call.args[0]):
            found.append(f"{path.name}:{call.lineno}: {ast.unparse(patterns[0])}")
        words = call.args if name in ("refused", "warned") else call.args[1:] if name == "assert_says" else []
        found += [f"{path.name}:{call.lineno}: {text}" for word in words if PROSE.search(text := _text(word))]
    return found


@pytest.mark.parametrize("path", sorted(tests.rglob("test_*.py")), ids=lambda path: path.relative_to(tests).as_posix())
def test_tests_say_words_and_no_sentences(path):
    assert not prose(path)


def test_a_sentence_is_found(tmp_path):
    path = tmp_path / "test_it.py"
    path.write_text('pytest.raises(InputError, match="rank")\nrefused("rank", 3, "is not a rank")\nrefused("rank", "f(x)")')
    assert [line.partition(":")[2][0] for line in prose(path)] == ["1", "2"]
