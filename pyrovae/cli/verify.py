"""``pyrovae verify RUN``: check that every file of a run is to the bit what was written, after a copy, say."""

from collections.abc import Sequence

from pyrovae.experiment.parser import make_parser, parse
from pyrovae.runs.results import verify


def main(argv: Sequence[str]) -> int:
    """Check all files of a run."""
    parser = make_parser("pyrovae verify", __doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    run = parse(parser, argv).run
    print(f"{run}: settings, metrics, and {verify(run)} checkpoints and results are what was written")
    return 0
