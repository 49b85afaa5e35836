"""Run folders that a test has changed."""

from pathlib import Path

from pyrovae.runs.atomic_files import digest_of_file, write_sealed
from pyrovae.runs.checkpoint import FORMAT_VERSION
from pyrovae.runs.results import writing_results


def reseal(run: Path) -> None:
    """Let a run be what was written, as one is that someone else made, and not damaged."""
    digests = {name: [digest_of_file(run / name)] for name in ("config.yaml", "split.npz") if (run / name).exists()}
    write_sealed(run / "manifest.json", {"format": FORMAT_VERSION, "sha256": digests})
    with writing_results(run):
        pass
