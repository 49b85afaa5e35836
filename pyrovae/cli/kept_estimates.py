"""The estimates that an evaluation left in a run folder."""

from pathlib import Path
from typing import Any, NamedTuple

from pyrovae.cli import annealed
from pyrovae.cli.evaluated_data import fingerprint, first
from pyrovae.cli.records import FINGERPRINT, read_summary
from pyrovae.errors import InputError
from pyrovae.evaluation import LogLikelihood
from pyrovae.report import Annealed
from pyrovae.runs.results import check_results
from pyrovae.runtime.batches import Columns


class Estimates(NamedTuple):
    """The numbers of an evaluation, its estimates of log p(x) and those by annealing if there are any."""

    summary: dict[str, Any]
    estimate: LogLikelihood
    annealed: Annealed | None


def read_estimates(run: Path) -> Estimates:
    """Read the estimates of a run.

    Raises:
        InputError: where it left nothing, or what cannot be read.
    """
    summary, estimate = run / "summary.json", run / "log_likelihood.nc"
    if not (summary.is_file() and estimate.is_file()):
        raise InputError(
            f"{run} has no estimates ({summary.name} and {estimate.name}); make them: run `pyrovae evaluate {run}` first"
        )
    check_results(run)
    return Estimates(read_summary(run), LogLikelihood.from_netcdf(estimate), annealed.read(run))


def require_same_data(run: Path, found: Estimates, tested: Columns) -> None:
    """Raise an InputError where the estimates are not of the first of these data."""
    number = len(found.estimate.log_p)
    if number > len(tested) or found.summary.get(FINGERPRINT) != fingerprint(first(tested, number)):
        raise InputError(
            f"the estimates of {run} are of other test data than these ({len(tested)}): run `pyrovae evaluate {run}` first"
        )
