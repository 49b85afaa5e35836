"""Files and folders that are there whole or not at all, whenever the process or the machine stops."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyrovae.errors import InputError
from pyrovae.untrusted.bounded_files import JSON, opened, parse_json, read_text

SEAL = "sha256 of all above"
"""The last entry of a sealed file."""


@contextmanager
def told(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Turn the system's errors into an InputError, and remove what was half written."""
    try:
        yield
    except OSError as error:
        if partial is not None and partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif partial is not None and os.access(partial.parent, os.W_OK):
            partial.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); what was there before is whole: make room, or let "
            "this folder be written, and go on from the last checkpoint with --resume (resume=True)"
        ) from error


def write_file(path: Path, content: bytes) -> None:
    """Replace a file's content in one step.

    Raises:
        InputError: where it cannot be written; the former content is there then.
    """
    partial = path.with_name(f".{path.name}.partial")
    with told(path, partial):
        _write(partial, content)
        partial.replace(path)
        _flush(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of files in one step; there must be none of that name.

    Raises:
        InputError: where it cannot be written; there is no folder then.
    """
    partial = path.with_name(f".{path.name}.partial")
    with told(path, partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, content in files.items():
            _write(partial / name, content)
        _flush(partial)
        partial.rename(path)
        _flush(path.parent)


def append(path: Path, content: bytes) -> None:
    """Append bytes to a file, which may have only some of them if the process or the machine stops.

    Raises:
        InputError: where it cannot be written.
    """
    with told(path), path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sealed(content: dict[str, Any]) -> bytes:
    """Serialise an object to JSON that ends with the SHA-256 of all before."""
    seal = digest(json.dumps(content, indent=2).encode())
    return (json.dumps({**content, SEAL: seal}, indent=2) + "\n").encode()


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with its own SHA-256, in one step."""
    write_file(path, sealed(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read the object that :func:`write_sealed` wrote.

    Raises:
        InputError: for a file that cannot be read, or has another bit than was written.
    """
    found = read_text(path, JSON)
    content = parse_json(found, str(path))
    if SEAL not in content:
        raise not_ours(path, "sealed file")
    del content[SEAL]
    if sealed(content) != found.encode():
        raise corrupt(path)
    return content


def not_ours(path: Path, kind: str = "manifest") -> InputError:
    """The error of a file that this library did not write."""
    return InputError(f"{path} is not a {kind} of this library; copy the run again, or train again")


def require_format(path: Path, manifest: dict[str, Any], version: int) -> None:
    """Raise an InputError for a manifest of another version of the format."""
    if manifest.get("format") != version:
        raise InputError(f"{path} has format {manifest.get('format')}; this version reads {version}: update pyrovae")


def corrupt(path: Path) -> InputError:
    """The error of a file that is not what was written."""
    return InputError(f"{path} is corrupt: its SHA-256 is not that of what was written; copy it again, or train again")


def digest(content: bytes) -> str:
    """The SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file, without reading it all at once."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
