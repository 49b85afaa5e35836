"""``pyrovae compare RUN RUN ...``: tell which of several trained runs gives the test data more probability.

It reads the estimates that training or ``pyrovae evaluate`` left in each run, and compares them datum by datum.
"""

from collections.abc import Sequence
from pathlib import Path

from pyrovae.cli.records import FINGERPRINT, read_summary
from pyrovae.errors import InputError
from pyrovae.experiment.parser import Parser, make_parser, parse
from pyrovae.runs.results import check_results
from pyrovae.untrusted.bounded_files import require_plain


def main(argv: Sequence[str]) -> int:
    """Compare the estimates of runs, and draw them if asked to."""
    asked = parse(_parser(), argv)
    runs = [Path(run) for run in asked.runs]
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise InputError(f"the runs are {', '.join(map(str, runs))}; expected two or more different ones")
    for run in runs:
        require_plain(run)
    _require_same_data(runs)
    from pyrovae.evaluation import LogLikelihood, compare

    named = dict(zip(_names(runs), runs, strict=True))
    estimates = {name: LogLikelihood.from_netcdf(run / "log_likelihood.nc") for name, run in named.items()}
    found = compare(estimates)
    print(found)
    if asked.figure is not None:
        from pyrovae import plots
        from pyrovae.cli.drawing import draw

        draw(Path(asked.figure), lambda ax: plots.comparison(found, ax))
        print(f"\nwritten: {asked.figure}")
    if asked.rate_distortion is not None:
        _draw_plane(named, len(estimates[found.names[0]].log_p), asked.rate_distortion)
    return 0


def _draw_plane(runs: dict[str, Path], number: int, figure: str) -> None:
    from pyrovae import plots
    from pyrovae.cli import rate_distortion_file
    from pyrovae.cli.drawing import draw

    found = rate_distortion_file.read(runs, number)
    print(f"\n{found}")
    draw(Path(figure), lambda ax: plots.rate_distortion(found, ax))
    print(f"\nwritten: {figure}")


def _parser() -> Parser:
    parser = make_parser("pyrovae compare", __doc__)
    parser.add_argument("runs", type=str, nargs="+", help="The run folders.")
    parser.add_argument("--figure", type=str | None, default=None, help="A PNG file to draw the comparison to.")
    about = "A PNG file to draw the runs to in the plane of rate and distortion, joined in the order given."
    parser.add_argument("--rate_distortion", type=str | None, default=None, help=about)
    return parser


def _names(runs: list[Path]) -> list[str]:
    """The names of the folders if these differ, or else their paths."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _require_same_data(runs: list[Path]) -> None:
    found = {run: _fingerprint(run) for run in runs}
    first = runs[0]
    for run, (fingerprint, number) in found.items():
        if (fingerprint, number) != found[first]:
            raise InputError(
                f"{run} was evaluated on other test data ({number}) than {first} ({found[first][1]}); compare runs of the "
                "same data, split and binarisation, evaluated to the same --limit"
            )


def _fingerprint(run: Path) -> tuple[str, int]:
    """The fingerprint and the number of the data that a run was evaluated on."""
    place = run / "summary.json"
    check_results(run, "summary.json", "log_likelihood.nc")
    if not place.is_file() or not (run / "log_likelihood.nc").is_file():
        raise InputError(f"{run} has no estimates (summary.json and log_likelihood.nc); make them: pyrovae evaluate {run}")
    summary = read_summary(run)
    found = summary.get(FINGERPRINT), summary.get("test data")
    if not (isinstance(found[0], str) and isinstance(found[1], int)):
        raise InputError(f"{place} does not say on which data the run was evaluated; make it again: pyrovae evaluate {run}")
    return found[0], found[1]
