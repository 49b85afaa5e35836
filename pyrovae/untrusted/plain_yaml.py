"""YAML that holds settings and nothing else: no tags, no more than a few thousand values, nested a few times.

The text is looked at as a stream of events before anything is made of it. An alias counts for all that it stands for, so
that ten lines cannot unfold to a thousand million values.
"""

from dataclasses import dataclass
from typing import Any

import yaml

SIZE = 2**20
"""Bytes of a configuration, at the most."""
VALUES, ITEMS, DEPTH, LENGTH = 2_000, 500, 32, 4096
"""Values of a configuration, those of one list, the levels that they are nested in, and characters of one, at the most: the
parser takes a time that grows as the square of a list's length."""
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """The content of a text.

    Raises:
        ValueError: for what is no YAML, or is more than settings.
    """
    try:
        require_plain_yaml(text)
        return yaml.load(text, Loader=_Loader)
    except ValueError:
        raise
    except Exception as error:  # a constructor's errors are of a dozen types
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def require_plain_yaml(text: str) -> None:
    """Raise a ValueError for a text that is more than settings; what is no YAML is an error of the parser."""
    anchors: dict[str, int] = {}
    open_nodes: list[_Open] = [_Open(None, 0)]
    values = 0
    for event in yaml.parse(text, Loader=_Loader):
        before = values
        if isinstance(event, yaml.NodeEvent):
            open_nodes[-1].items += 1
            values += _size_of(event, anchors)
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append(_Open(event.anchor, before))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = open_nodes.pop()
            anchors |= {} if closed.anchor is None else {closed.anchor: values - closed.before}
        if values > VALUES or open_nodes[-1].items > ITEMS or len(open_nodes) > DEPTH:
            raise ValueError(
                f"it holds more than {VALUES:,} values, or {ITEMS} in one list, or nests them in more than {DEPTH} levels"
            )


@dataclass
class _Open:
    """A list or mapping that has not ended: its anchor, the values before it, and its own so far."""

    anchor: str | None
    before: int
    items: int = 0


def _size_of(event: Any, anchors: dict[str, int]) -> int:
    """The values that an event adds."""
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise ValueError(f"the alias {event.anchor[:80]!r} stands inside what it stands for, or for nothing")
        return anchors[event.anchor]
    _require_plain_node(event)
    if isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
        anchors[event.anchor] = 1
    return 1


def _require_plain_node(event: Any) -> None:
    if event.tag is not None:
        raise ValueError(f"the tag {event.tag[:80]!r} in line {event.start_mark.line + 1} asks for more than a plain value")
    if isinstance(event, yaml.ScalarEvent) and len(event.value) > LENGTH:
        raise ValueError(f"a value in line {event.start_mark.line + 1} has more than {LENGTH:,} characters")
