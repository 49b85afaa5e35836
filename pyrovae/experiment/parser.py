"""The parsers of all commands, and the types of their arguments: the one place where commands meet jsonargparse."""

import math
from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveInt, restricted_number_type

from pyrovae.errors import InputError
from pyrovae.experiment.jsonargparse_internals import defaults_left_behind
from pyrovae.experiment.messages import explain

__all__ = [
    "ActionYesNo",
    "Count",
    "Level",
    "Namespace",
    "NonNegativeInt",
    "Parser",
    "PositiveInt",
    "Tolerance",
    "add_trust",
    "make_parser",
    "parse",
]

Count = PositiveInt | None  # pyright: ignore[reportOperatorIssue]
Level = OpenUnitInterval
Tolerance = restricted_number_type("Tolerance", float, [(">", 0.0), ("<", math.inf)]) | None  # pyright: ignore[reportOperatorIssue]


class Parser(ArgumentParser):
    """A parser in which another class begins with its own defaults.

    jsonargparse hands on what a class was given to the class that takes its place, where both have an argument of that name:
    what was said should be, but a default of the one is no wish for the other.
    """

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        with defaults_left_behind():
            return super().parse_args(*args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> Namespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        with defaults_left_behind():
            return super().parse_object(*args, **kwargs)


def make_parser(prog: str | None = None, description: str | None = None) -> Parser:
    """Make a parser without arguments, which raises errors and takes no abbreviated options."""
    return Parser(prog=prog, exit_on_error=False, allow_abbrev=False, description=description)


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse a command line.

    Raises:
        InputError: for what the parser does not know, with the nearest spelling that it does.
    """
    try:
        return parser.parse_args([*argv])
    except ArgumentError as error:
        raise InputError(explain(str(error), parser)) from error


def add_trust(parser: ArgumentParser) -> None:
    """Add the option that lets a run's configuration name classes of other modules."""
    about = "A module whose classes the run's config.yaml may name too, and which is then imported; once for each."
    parser.add_argument("--trust", type=str, action="append", default=[], metavar="MODULE", help=about)
