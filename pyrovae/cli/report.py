"""``pyrovae report RUN``: one page of HTML about a trained and evaluated run, which opens without a network.

An option ``--data.X VALUE`` overrides the configuration of the run, for data that were moved: ``--data.root`` of MNIST,
``--data.path`` of an array.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pyrovae.cli.output_path import require_folder
from pyrovae.cli.reopened import divide
from pyrovae.cli.report_contents import contents
from pyrovae.errors import InputError
from pyrovae.experiment.parser import Parser, add_trust, make_parser, parse
from pyrovae.report import render
from pyrovae.runs.atomic_files import told
from pyrovae.runs.results import add_results


def main(argv: Sequence[str]) -> int:
    """Write the page."""
    own, moved = divide(argv)
    asked = parse(_parser(), own)
    run = Path(asked.run)
    output = Path(asked.output or run / "report.html")
    _check_writable(output)
    page = contents(run, moved, asked.trust, command=shlex.join(["pyrovae", "report", *argv]))
    with told(output):
        output.write_text(render(page), encoding="utf-8")
    add_results(run, output)
    for name, reason in page.left_out.items():
        print(f"left out: {name}, because {reason}")
    print(f"written: {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0


def _parser() -> Parser:
    parser = make_parser("pyrovae report", __doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    parser.add_argument("--output", type=str | None, default=None, help="The file to write; RUN/report.html if not given.")
    add_trust(parser)
    return parser


def _check_writable(output: Path) -> None:
    if output.is_dir():
        raise InputError(f"--output is {output}, a folder; expected a file, such as {output / 'report.html'}")
    require_folder(output)
