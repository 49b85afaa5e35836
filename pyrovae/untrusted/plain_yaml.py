"""Settings in YAML that someone else may have written: no tags, no merges, a few thousand values, nested a few times.

The text is counted as a stream of events before anything is made of it, and what it makes is counted with every alias
unfolded, so that ten lines cannot stand for a thousand million values.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import yaml

SIZE = 2**20
"""Largest size of a configuration, in bytes."""
VALUES, ITEMS, DEPTH, LENGTH = 2_000, 500, 32, 4096
"""Largest number of values of a configuration, of items in one of its lists, of nested levels, and of characters in a value:
the parser of settings takes a time that grows as the square of a list's length."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """Read the content of a text in YAML.

    Raises:
        ValueError: for a text that is not YAML, or holds more than settings.
    """
    try:
        _require_plain_nodes(text)
        content = yaml.load(text, Loader=_Loader)
        _require_few(_unfolded(content), VALUES)
    except ValueError:
        raise
    except Exception as error:  # a constructor's errors are of a dozen types
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    return content


def require_plain_string(value: str) -> None:
    """Raise a ValueError for a string that would be more than a few values where a parser reads it as YAML once more."""
    if "&" in value and "*" in value:
        raise ValueError(f"the string {value[:80]!r} has both signs of an alias, & and *")
    _require_few((character for character in value if character in "[{,:?-\n"), ITEMS)


def _require_plain_nodes(text: str) -> None:
    """Raise a ValueError for tags, merges and long values, at the first of them; no alias is unfolded."""
    nodes = (event for event in yaml.parse(text, Loader=_Loader) if isinstance(event, yaml.NodeEvent))
    _require_few((_require_plain_node(node) for node in nodes), VALUES)


def _require_plain_node(node: Any) -> None:
    line, value = node.start_mark.line + 1, getattr(node, "value", "")
    if getattr(node, "tag", None) is not None or value == "<<":
        raise ValueError(f"line {line} has a tag or a merge, which asks for more than a plain value")
    if len(value) > LENGTH:
        raise ValueError(f"a value in line {line} has more than {LENGTH:,} characters")


def _unfolded(value: Any, depth: int = 0) -> Iterator[Any]:
    """Every value within a value, an alias counted as all that it stands for."""
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    if depth > DEPTH or len(items) > ITEMS:
        raise ValueError(f"it nests values in more than {DEPTH} levels, or has more than {ITEMS} in one list")
    yield value
    for item in items:
        yield from _unfolded(item, depth + 1)


def _require_few(values: Iterator[Any], limit: int) -> None:
    if len([*islice(values, limit + 1)]) > limit:
        raise ValueError(f"it holds more than {limit:,} values")
