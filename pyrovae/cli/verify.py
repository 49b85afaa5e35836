"""``pyrovae verify RUN``: look whether every file of a run is to the bit what was written, after it was copied, say."""

from collections.abc import Sequence

from pyrovae.experiment.parser import make_parser, parse
from pyrovae.runs.results import verify


def main(argv: Sequence[str]) -> int:
    """Look at all files."""
    parser = make_parser("pyrovae verify", __doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    run = parse(parser, argv).run
    print(f"{run}: settings, metrics, and {verify(run)} checkpoints and results are what was written")
    return 0
