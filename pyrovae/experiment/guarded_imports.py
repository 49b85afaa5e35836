"""A guard over the names that jsonargparse imports while it parses and builds a run's configuration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock, get_ident
from typing import Any

from pyrovae.errors import InputError
from pyrovae.experiment.jsonargparse_internals import import_object, importing_by
from pyrovae.experiment.trust import find

_one_at_a_time = RLock()


@contextmanager
def guarded(source: Path, trust: Sequence[str] = ()) -> Iterator[None]:
    """Let jsonargparse import only what :func:`find` finds, for as long as this is entered.

    A refusal is raised at the end also where someone in between took it for one of several possibilities.

    Raises:
        InputError: for a name that :func:`find` refuses.
    """
    refused: list[InputError] = []
    thread, active = get_ident(), True

    def guard(name: str, check_path: bool = True) -> Any:
        if not (check_path and active and thread == get_ident()):  # the name is from a signature, or from another's settings
            return import_object(name, check_path)
        try:
            return find(name, source, trust)
        except InputError as error:
            refused.append(error)
            raise

    with _one_at_a_time, importing_by(guard):
        try:
            yield
        finally:
            active = False  # for whoever was first imported meanwhile, and took the guard for what it stands for
            if refused:
                raise refused[0]
