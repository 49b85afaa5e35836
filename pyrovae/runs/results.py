"""Results that evaluation adds to a run, sealed, and the verification of every file of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrovae.errors import InputError
from pyrovae.runs.atomic_files import corrupt, digest_of_file, read_sealed, told, write_sealed
from pyrovae.runs.checkpoint import FORMAT_VERSION, checked_checkpoint
from pyrovae.runs.checkpoint_index import checkpoints
from pyrovae.runs.metrics_file import check_metrics
from pyrovae.runs.settings_files import check_settings
from pyrovae.untrusted.bounded_files import require_plain

_estimates = ("summary.json", "log_likelihood.nc", "rate_distortion.npz", "annealed.*")
_patterns = (*_estimates, "samples.*", "report.html", "figures/*.png")
"""Results, as patterns of paths in a run."""


@contextmanager
def writing_results(run: Path) -> Iterator[None]:
    """Let results be written into a run, and write the SHA-256 of each to ``results.json`` on leaving.

    Raises:
        InputError: where one cannot be written.
    """
    with told(run):
        (run / "results.json").unlink(missing_ok=True)
        yield
        digests = {str(path.relative_to(run)): digest_of_file(path) for path in _results(run)}
    write_sealed(run / "results.json", {"format": FORMAT_VERSION, "sha256": digests})


def add_results(run: Path, *written: Path) -> None:
    """Seal files that were written into a run, beside those that are sealed already."""
    results, places = _results(run), {path.resolve() for path in written}
    new = {str(path.relative_to(run)): digest_of_file(path) for path in results if path.resolve() in places}
    if new:
        write_sealed(run / "results.json", {"format": FORMAT_VERSION, "sha256": _digests(run) | new})


def check_results(run: Path, *names: str) -> None:
    """Check the SHA-256 of the named results, or of all if none is named.

    Raises:
        InputError: where one is missing or not what was written, or where the writing was cut off; it names the file.
    """
    found = {str(path.relative_to(run)) for path in _results(run)}
    if not found:
        return
    remedy = f"make the results anew: pyrovae evaluate {run}"
    if not (run / "results.json").exists():
        raise InputError(f"{run / 'results.json'} is missing: an evaluation was cut off; {remedy}")
    known = _digests(run)
    for name in sorted(names or {*known, *found}):
        if name not in known or name not in found:
            raise InputError(f"{run / name} is {'missing' if name in known else 'not in results.json'}; {remedy}")
        if digest_of_file(run / name) != known[name]:
            raise corrupt(run / name)


def verify(run: str | Path) -> int:
    """Check that every file of a run is to the bit what was written.

    Args:
        run: the run folder.

    Returns:
        The number of checkpoints and results that were looked at.

    Raises:
        InputError: for a file that is missing or that is not what was written; it names the file.
    """
    run = Path(run)
    require_plain(run)
    check_settings(run)
    check_metrics(run)
    names = checkpoints(run / "checkpoints")
    for name in names:
        checked_checkpoint(run / "checkpoints", name)
    check_results(run)
    return len(names) + len(_results(run))


def _digests(run: Path) -> dict[str, str]:
    """The SHA-256 of each sealed result, by name."""
    path = run / "results.json"
    digests = read_sealed(path).get("sha256") if path.exists() else {}
    if not isinstance(digests, dict):
        raise InputError(f"{path} is not a file of this library; make the results anew: pyrovae evaluate {run}")
    return digests


def _results(run: Path) -> list[Path]:
    return sorted(path for pattern in _patterns for path in run.glob(pattern) if path.is_file())
