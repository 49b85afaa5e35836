"""The contents of the page about a run, read from its folder and made with its pair."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pyrovae.cli.figures import are_pictures, left_out
from pyrovae.cli.generation import sample_means
from pyrovae.cli.kept_estimates import Estimates, read_estimates, require_same_data
from pyrovae.cli.records import FINGERPRINT, read_metrics
from pyrovae.cli.reopened import Reopened, reopen
from pyrovae.cli.report_points import LARGE, SHOWN, WORST, points_of, reconstructed_pairs, shown
from pyrovae.evaluation import LogLikelihood
from pyrovae.experiment.load import read_config
from pyrovae.report import Page, Points, data_uris, shrunk
from pyrovae.runtime.batches import Columns, as_data


def contents(run: Path, moved: Sequence[str], trust: Sequence[str], command: str) -> Page:
    """Read and compute what the page about a run shows.

    Args:
        run: the run folder.
        moved: options of its data.
        trust: modules whose classes its configuration may name.
        command: what asked for the page.

    Raises:
        InputError: where the folder is no run, or was not evaluated, or the data are not those that it was evaluated on.
    """
    config = read_config(run)
    found = read_estimates(run)
    opened = reopen(run, moved, trust)
    tested = as_data(opened.data.test.fixed_draw())
    require_same_data(run, found, tested)
    rows = shown(found.estimate, len(tested))
    labels = opened.data.test.labels
    points, means = points_of(opened, tested, rows, None if labels is None else labels.numpy()[rows], found.estimate)
    omitted = left_out(opened.data.event_shape, means) | _not_estimated(found.estimate, points)
    metrics = read_metrics(run)
    omitted |= {} if any("train_bound" in row for row in metrics) else {"training": "no epoch is on record"}
    return Page(
        name=run.resolve().name,
        facts=_facts(opened),
        summary=found.summary,
        estimate=found.estimate,
        points=points,
        metrics=metrics,
        reconstructions=[] if "reconstructions" in omitted else reconstructed_pairs(opened, tested),
        samples=[] if "samples" in omitted else data_uris(shrunk(sample_means(opened.vae), LARGE)),
        annealed=found.annealed,
        left_out=omitted,
        notes=_notes(opened, tested, points, found.estimate),
        config=config,
        provenance=_provenance(found, command),
    )


def _not_estimated(estimate: LogLikelihood, points: Points) -> dict[str, str]:
    """The figures of estimates that cannot be drawn, each with the reason."""
    reasons = {}
    if not estimate.bounds:
        reasons["bounds"] = "the estimates hold no bound"
    elif not np.isfinite(estimate.mean):
        reasons["bounds"] = f"the mean of log p(x) is {estimate.mean}"
    if not (np.isfinite(points.k_hat) & np.isfinite(points.log_p)).any():
        reasons["k_hats"] = "no k-hat could be fitted (too few draws, or tied weights)"
    return reasons


def _notes(opened: Reopened, tested: Columns, points: Points, estimate: LogLikelihood) -> dict[str, str]:
    """Sentences about parts of the page that do not show all, or show it in another way."""
    number = len(estimate.log_p)
    notes = {}
    if number > SHOWN:
        notes["k_hats"] = f"{SHOWN:,} of {number:,} data are drawn, and among them the {WORST} least to be trusted."
    elif undrawn := number - int(np.isfinite(points.k_hat[:number] + points.log_p[:number]).sum()):
        notes["k_hats"] = f"Not drawn: {undrawn:,} data without a finite k-hat or log p(x)."
    if number < len(points.index):
        notes["latent_map"] = f"{number:,} of these {len(points.index):,} data were evaluated."
    if opened.vae.context_shape is not None:
        notes["samples"] = "The model is conditioned on labels; these are in turn."
        notes["context"] = "labels"
    if "mask" in tested.given and are_pictures(opened.data.event_shape):
        notes["reconstructions"] = "Orange pixels were not observed."
    return notes


def _facts(opened: Reopened) -> dict[str, str]:
    """The parts that the run is made of, by name."""
    model, guide = opened.vae.model, opened.vae.guide
    objective = opened.config.objective["class_path"].rpartition(".")[2]
    return {
        "data": repr(opened.data),
        "prior": type(model.prior).__name__,
        "likelihood": type(model.likelihood).__name__,
        "guide": type(guide).__name__,
        "latent dimensions": str(opened.config.model.latent_dim),
        "objective": objective,
    }


def _provenance(found: Estimates, command: str) -> dict[str, str]:
    """The command, the versions and the data that the page was made with."""
    return {
        "this page": command,
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
        "Python": platform.python_version(),
        "platform": platform.platform(),
        FINGERPRINT: str(found.summary[FINGERPRINT]),
    }
