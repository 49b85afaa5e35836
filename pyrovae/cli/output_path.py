"""Where a command may write its output."""

from pathlib import Path

from pyrovae.errors import InputError


def require_folder(output: Path) -> None:
    """Raise an InputError where the folder that a file is to be written to does not exist."""
    if not output.parent.is_dir():
        raise InputError(f"{output.parent} is not a folder; expected one to write {output.name} to: make it first")
