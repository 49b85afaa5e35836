"""Errors of the parser as messages to act on: what was found, what was expected, the nearest spelling."""

import inspect
import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module

import torch
from jsonargparse import ArgumentParser

import pyrovae.data
import pyrovae.guides
import pyrovae.likelihoods
import pyrovae.networks
import pyrovae.objectives
import pyrovae.priors
from pyrovae.experiment.jsonargparse_internals import destinations

rooms = {
    "data": pyrovae.data,
    "prior": pyrovae.priors,
    "likelihood": pyrovae.likelihoods,
    "guide": pyrovae.guides,
    "encoder": pyrovae.networks,
    "decoder": pyrovae.networks,
    "objective": pyrovae.objectives,
}
"""Packages from whose classes a key of the configuration chooses."""


def explain(message: str, parser: ArgumentParser) -> str:
    """Reword a parser's message as found, expected and remedy."""
    key = re.search(r'Parser key "([\w.]+)"', message)
    if unknown := re.search(r"Expected a dot import path string: (\S+)", message):
        return _unknown_class(unknown[1], key[1] if key else "")
    if unknown := re.search(
        r"(?:does not accept option|Option) '([\w.]+)'|unrecognized arguments: (?:--)?([^\s=]+)", message
    ):
        return _unknown_option(unknown[1] or unknown[2], message, parser)
    if missing := re.search(r"required: (.*)", message):
        return f"{missing[1]} is missing; `{parser.prog} --help` shows where it goes"
    message = re.sub(r"<class '([\w.]+)'>", r"\1", message)
    return re.sub(r"\s*\n\s*", " ", message).removeprefix(f'Parser key "{key[1]}": ' if key else "") + (
        f" (at {key[1]!r})" if key else ""
    )


def _unknown_class(name: str, key: str) -> str:
    choices = _classes(key.rpartition(".")[2])
    return f"{key} is {name!r}, which is no class here; {nearest(name, choices, 'expected')}"


def _classes(room: str) -> list[str]:
    """The names of the concrete classes that a key chooses from."""
    module = rooms.get(room) or {"optimizer": torch.optim, "scheduler": torch.optim.lr_scheduler}.get(room)
    found = inspect.getmembers(module, inspect.isclass) if module else []
    return [name for name, kind in found if not is_abstract(kind) and not name.startswith("_")]


def is_abstract(kind: type) -> bool:
    """Whether a class lacks the implementation of an abstract method."""
    return any(getattr(getattr(kind, name), "__isabstractmethod__", False) for name in dir(kind))


def _unknown_option(name: str, message: str, parser: ArgumentParser) -> str:
    path = re.search(r"class_path[ =]'([\w.]+)'", message)
    if path:
        owner = path[1].rpartition(".")[2]
        return f"{owner} has no argument {name!r}; {nearest(name, _arguments(path[1]), 'it has')}"
    group = re.search(r"Group '([\w.]+)'", message)
    full = f"{group[1]}.{name}" if group else name
    return f"{full!r} is not a setting; {nearest(full, _settings(parser), 'print all of them with --print_config, such as')}"


def _arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return list(inspect.signature(getattr(import_module(module), name)).parameters)


def _settings(parser: ArgumentParser) -> list[str]:
    keys = [key.replace(".init_args", "") for key in parser.get_defaults().keys(branches=True)]
    return sorted(destinations(parser) | {key for key in keys if "class_path" not in key})


def nearest(name: str, choices: Iterable[str], otherwise: str) -> str:
    """Name the nearest of the choices, or all of them if none is near."""
    choices = [*choices]
    close = get_close_matches(name, choices, 1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"{otherwise} {', '.join(choices)}"
