"""``config.yaml`` and ``split.npz``, which say what a run is, and ``manifest.json`` with their SHA-256."""

import io
from pathlib import Path

import numpy as np

from pyrovae.runs.atomic_files import (
    corrupt,
    digest,
    digest_of_file,
    not_ours,
    read_sealed,
    require_format,
    write_file,
    write_sealed,
)
from pyrovae.runs.checkpoint import FORMAT_VERSION

NAMES = ("config.yaml", "split.npz")


def settings_files(config: str | None, split: dict[str, np.ndarray] | None) -> dict[str, bytes]:
    """The bytes of each file, by name, from the text of the configuration and the arrays of the split."""
    files = {} if config is None else {"config.yaml": config.encode()}
    if split is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **split)  # pyright: ignore[reportArgumentType]
        files["split.npz"] = buffer.getvalue()
    return files


def write_settings(run: Path, files: dict[str, bytes]) -> None:
    """Write the files of a run that begins, and their manifest."""
    for name, content in files.items():
        write_file(run / name, content)
    _write_manifest(run, {name: [digest(content)] for name, content in files.items()})


def replace_settings(run: Path, files: dict[str, bytes]) -> None:
    """Replace the files by others; between the writes the manifest accepts either."""
    former, now = _digests(run), {name: digest(content) for name, content in files.items()}
    if any(former.get(name) != [value] for name, value in now.items()):
        _write_manifest(run, former | {name: [*former.get(name, []), value] for name, value in now.items()})
        for name, content in files.items():
            write_file(run / name, content)
        _write_manifest(run, former | {name: [value] for name, value in now.items()})


def check_settings(run: Path) -> None:
    """Check the SHA-256 of ``config.yaml`` and ``split.npz``.

    Raises:
        InputError: where one is missing, or is not what was written; it names the file.
    """
    for name, known in _digests(run).items():
        if digest_of_file(run / name) not in known:
            raise corrupt(run / name)


def _digests(run: Path) -> dict[str, list[str]]:
    path = run / "manifest.json"
    manifest = read_sealed(path)
    require_format(path, manifest, FORMAT_VERSION)
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or not all(
        name in NAMES and isinstance(known, list) for name, known in digests.items()
    ):
        raise not_ours(path)
    return digests


def _write_manifest(run: Path, digests: dict[str, list[str]]) -> None:
    write_sealed(run / "manifest.json", {"format": FORMAT_VERSION, "sha256": digests})
