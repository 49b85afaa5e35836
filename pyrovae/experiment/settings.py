"""The settings of a run, from the text of its ``config.yaml``, which may be a stranger's."""

from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiment.guarded_imports import guarded
from pyrovae.experiment.parser import Namespace, Parser
from pyrovae.experiment.trust import find, is_within, require_modules
from pyrovae.untrusted.plain_yaml import read_yaml, require_plain_string

_orders = {"config", "print_config", "help"}
"""Words that make the parser act, where a setting would stand."""
REMEDY = "expected what `pyrovae train` wrote: copy the run again"
"""For the errors of settings that nobody edits by hand."""


def read_settings(text: str, source: Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """Read the settings in a text of YAML, and look up every class that they name.

    Args:
        text: the configuration.
        source: the file that it is from, for the message.
        trust: modules, with all below them, whose classes may be named too.

    Raises:
        InputError: for a text that holds more than settings, and for a class of a module that is not trusted.
    """
    require_modules(trust)
    with _as_input_error(source):
        settings = read_yaml(text)
    if not isinstance(settings, dict) or _orders & settings.keys():
        raise InputError(f"{source} does not hold settings; {REMEDY}")
    _look_at(settings, source, trust)
    return settings


def parse_settings(
    parser: Parser, settings: dict[str, Any], source: Path, trust: Sequence[str] = (), argv: Sequence[str] = ()
) -> Namespace:
    """Parse the settings of a run, overridden by words of a command line.

    Raises:
        InputError: for settings that the parser does not accept, and for a class of a module that is not trusted.
        ArgumentError: for words that it does not accept.
    """
    with guarded(source, trust):
        try:
            parsed = parser.parse_object(settings)
        except (Exception, SystemExit) as error:  # what no one wrote ends in errors of a dozen types
            raise InputError(f"{source} cannot be used ({_one_line(error)}); {REMEDY}") from error
        return parser.parse_args([*argv], namespace=parsed) if argv else parsed


@contextmanager
def _as_input_error(source: Path) -> Iterator[None]:
    """Turn a ValueError into an InputError that names the file."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{source} does not hold settings ({error}); {REMEDY}") from error


def _look_at(value: Any, source: Path, trust: Sequence[str], setting: bool = True) -> None:
    """Look up every class that is named, and refuse words and numbers that settings do not have."""
    if isinstance(value, dict):
        spec = "class_path" in value
        for key, inner in value.items():
            _look_at_key(key, source, setting or spec)
            _look_at(key, source, trust)
            _look_at(inner, source, trust, (setting or spec) and (spec or "init_args" not in value))
        if spec:
            _look_up(value["class_path"], source, trust)
    elif isinstance(value, list):
        for inner in value:
            _look_at(inner, source, trust, setting)
    elif isinstance(value, str):
        with _as_input_error(source):
            require_plain_string(value)
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise InputError(
            f"{source} holds a number of {value.bit_length()} bits; expected 64 at the most: copy the run again"
        )


def _look_up(name: Any, source: Path, trust: Sequence[str]) -> None:
    """Look up a name with a dot; the parser looks up one without, and meets the guard."""
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


def _one_line(error: BaseException) -> str:
    return " ".join(f"{error if isinstance(error, ArgumentError | ValueError) else repr(error)}".split())[:1000]
