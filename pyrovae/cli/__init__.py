"""The command line: each command is a module of its name, imported when it is asked for."""

import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

from pyrovae.errors import InputError
from pyrovae.runtime.text_table import table_lines

LONGEST = 4000
"""Largest number of characters in a message."""
commands = {
    "train": "train a VAE from a configuration, evaluate it, and draw what it learnt",
    "evaluate": "estimate log p(x) of a trained run again, with other samples",
    "report": "make one page of HTML about a run: figures that answer the mouse, pictures, numbers",
    "compare": "tell which of several trained runs gives the test data more probability",
    "sample": "draw new data from a trained run",
    "verify": "look whether every file of a run is what was written",
    "parts": "list what a VAE is made of: priors, likelihoods, guides, networks, objectives",
}

usage = """usage: pyrovae COMMAND ...

Variational autoencoders as a pair of Pyro programs.

commands:
{commands}

  pyrovae train --config configs/digits.yaml     a first run, in a minute
  pyrovae COMMAND --help                         what a command takes
  pyrovae --version
""".format(commands="\n".join(table_lines([*commands.items()], "<<", indent="  ")))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for input that cannot be used, with one message and no traceback.

    Where a signal ended it, it is 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM.
    """
    word, *rest = [*(sys.argv[1:] if argv is None else argv)] or ["--help"]
    if word in ("-h", "--help"):
        print(usage, end="")
        return 0
    if word == "--version":
        print(version("pyrovae"))
        return 0
    try:
        return _command(word)(rest)
    except InputError as error:
        print(f"pyrovae: {_printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"pyrovae: {_printable(str(stop) or 'interrupted')}", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)


def _printable(message: str) -> str:
    """Replace control characters in a message, which may quote a stranger's file, and shorten it."""
    shown = "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in message)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]} ... ({len(shown):,} characters)"


def _command(word: str):
    if word not in commands:
        close = get_close_matches(word, commands, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(commands)}"
        raise InputError(f"{word!r} is not a command; {remedy}")
    return import_module(f"pyrovae.cli.{word}").main
