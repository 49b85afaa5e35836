"""``pyrovae evaluate RUN``: the estimates, table and figures of a trained run again."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from pyrovae.cli.parse import parse
from pyrovae.cli.report import report
from pyrovae.cli.train import default_device
from pyrovae.training import load
from pyrovae.training.config import Count, build, experiment_parser


def main(argv: Sequence[str]) -> int:
    """Evaluate a run on its test data."""
    parser = ArgumentParser(prog="pyrovae evaluate", exit_on_error=False, allow_abbrev=False, description=__doc__)
    parser.add_argument("run", type=str, help="The run folder.")
    parser.add_argument("--num_samples", type=Count, default=None, help="Importance samples a datum.")
    parser.add_argument("--limit", type=Count, default=None, help="Evaluate the first so many test data.")
    parser.add_argument("--data_root", type=str | None, default=None, help="Where the data are now, if they were moved.")
    parser.add_argument("--device", type=str | None, default=None, help="As trained if not given.")
    asked = parse(parser, argv)
    run = Path(asked.run)
    vae = load(run)
    experiment = experiment_parser()
    moved = [] if asked.data_root is None else ["--data.root", asked.data_root]
    config = parse(experiment, ["--config", str(run / "config.yaml"), *moved])
    report(
        vae,
        build(experiment, config).data,
        run,
        num_samples=asked.num_samples or config.evaluation.num_samples,
        limit=asked.limit or config.evaluation.limit,
        device=asked.device or default_device(config),
    )
    return 0
