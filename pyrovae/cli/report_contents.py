"""What the page about a run says, read from its folder and made with its pair."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyrovae.cli.compare import FINGERPRINT
from pyrovae.cli.evaluate import Reopened, reopen
from pyrovae.cli.evaluation import are_pictures, decoded, fingerprint, first, generated, left_out
from pyrovae.cli.records import is_number, read_metrics, read_numbers, read_summary
from pyrovae.errors import InputError
from pyrovae.evaluation import LogLikelihood, latent_map, posterior_means
from pyrovae.experiment.load import read_config
from pyrovae.report import Annealed, Page, Points, data_uris, shrunk
from pyrovae.runs.results import check_results
from pyrovae.runtime.batches import Batch, Columns, as_data, batches

SHOWN = 2000
"""Data that are shown one by one, at the most."""
WORST = 50
"""Of these, data with the largest k-hats, wherever they stand."""
SMALL, LARGE = 3072, 3 * 96**2
"""Numbers in one picture, at the most: under the mouse, of which there are many, and of a reconstruction or sample."""
PAIRS = 40
"""Reconstructions."""


class Estimates(NamedTuple):
    """What evaluation left in a run."""

    summary: dict[str, Any]
    estimate: LogLikelihood
    annealed: Annealed | None


def contents(run: Path, moved: Sequence[str], trust: Sequence[str], command: str) -> Page:
    """All that the page about a run says.

    Args:
        run: the run folder.
        moved: options of its data.
        trust: modules whose classes its configuration may name.
        command: what asked for the page.

    Raises:
        InputError: where the folder is no run, or was not evaluated, or the data are not those that it was evaluated on.
    """
    config = read_config(run)
    found = estimates(run)
    opened = reopen(run, moved, trust)
    tested = as_data(opened.data.test.fixed_draw())
    _require_same_data(run, found, tested)
    rows = shown(found.estimate, len(tested))
    labels = opened.data.test.labels
    points, means = _points(opened, tested, rows, None if labels is None else labels.numpy()[rows], found.estimate)
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
        reconstructions=[] if "reconstructions" in omitted else _reconstructions(opened, tested),
        samples=[] if "samples" in omitted else data_uris(shrunk(generated(opened.vae), LARGE)),
        annealed=found.annealed,
        left_out=omitted,
        notes=_notes(opened, tested, points, found.estimate),
        config=config,
        provenance=_provenance(found, command),
    )


def estimates(run: Path) -> Estimates:
    """Read what evaluation left in a run.

    Raises:
        InputError: where it left nothing, or what cannot be read.
    """
    summary, estimate = run / "summary.json", run / "log_likelihood.nc"
    if not (summary.is_file() and estimate.is_file()):
        raise InputError(
            f"{run} has no estimates ({summary.name} and {estimate.name}); make them: run `pyrovae evaluate {run}` first"
        )
    check_results(run)
    return Estimates(read_summary(run), LogLikelihood.from_netcdf(estimate), _annealed(run / "annealed.json"))


def _annealed(path: Path) -> Annealed | None:
    if not path.is_file():
        return None
    found, names = read_numbers(path), Annealed.__annotations__
    if missing := [name for name in names if not is_number(found.get(name))]:
        raise InputError(f"{path} has no number {missing[0]!r}; expected {', '.join(names)}: make it anew, or remove it")
    return Annealed(**{name: found[name] for name in names})


def _require_same_data(run: Path, found: Estimates, tested: Columns) -> None:
    number = len(found.estimate.log_p)
    if number > len(tested) or found.summary.get(FINGERPRINT) != fingerprint(first(tested, number)):
        raise InputError(
            f"the estimates of {run} are of other test data than these ({len(tested)}): run `pyrovae evaluate {run}` first"
        )


def shown(estimate: LogLikelihood, available: int) -> np.ndarray:
    """The data that are shown one by one: the worst of all, and the first others."""
    k_hat = np.nan_to_num(estimate.k_hat, nan=-np.inf)
    worst = np.argsort(-k_hat, kind="stable")[:WORST]
    others = np.setdiff1d(np.arange(available), worst)
    return np.sort(np.concatenate([worst, others[: SHOWN - len(worst)]]))


def _points(
    opened: Reopened, tested: Columns, rows: np.ndarray, labels: np.ndarray | None, estimate: LogLikelihood
) -> tuple[Points, Tensor]:
    """The data of these rows, and the means of their latents."""
    drawable = are_pictures(opened.data.event_shape)
    means, pictures = [], []
    for batch in batches(tested, 250, order=torch.from_numpy(rows)):
        means.append(posterior_means(opened.vae, batch.plain()))
        pictures += [shrunk(_seen(batch), SMALL)] if drawable else []
    located = torch.cat(means)
    mapped = "latent_map" not in left_out(opened.data.event_shape, located)
    points = Points(
        index=rows,
        log_p=_of(estimate.log_p, rows),
        k_hat=_of(estimate.k_hat, rows),
        labels=labels,
        pictures=data_uris(np.concatenate(pictures)) if drawable else None,
        latent=latent_map(located) if mapped else None,
    )
    return points, located


def _seen(batch: Batch) -> Tensor:
    """The data, without the numbers that were not observed."""
    mask = batch.given.get("mask")
    return batch.x if mask is None else torch.where(mask, batch.x, torch.nan)


def _of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The values of these rows; none for those that were not evaluated."""
    return np.concatenate([values, np.full(max(0, rows.max() + 1 - len(values)), np.nan)])[rows]


def _reconstructions(opened: Reopened, tested: Columns[Tensor | Dataset]) -> list[tuple[str, str]]:
    batch = next(batches(tested, PAIRS))
    pairs = shrunk(torch.cat([_seen(batch), decoded(opened.vae, batch)]), LARGE)
    addresses = data_uris(pairs)
    return list(zip(addresses[: len(batch)], addresses[len(batch) :], strict=True))


def _not_estimated(estimate: LogLikelihood, points: Points) -> dict[str, str]:
    """The figures of estimates that cannot be drawn, each with the reason."""
    reasons = {}
    if not estimate.bounds:
        reasons["bounds"] = "the estimates hold no bound"
    elif not np.isfinite(estimate.mean):
        reasons["bounds"] = f"the mean of log p(x) is {estimate.mean}"
    if not (np.isfinite(points.k_hat) & np.isfinite(points.log_p)).any():
        reasons["k_hats"] = "no k-hat could be fitted (too few draws, or equal weights)"
    return reasons


def _notes(opened: Reopened, tested: Columns, points: Points, estimate: LogLikelihood) -> dict[str, str]:
    """A sentence more about parts that do not show all, or show it in another way."""
    number = len(estimate.log_p)
    notes = {}
    if number > SHOWN:
        notes["k_hats"] = f"{SHOWN:,} of {number:,} data are drawn, and among them the {WORST} with the largest k-hats."
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
    """What the run is made of."""
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
    """What the page was made with."""
    return {
        "this page": command,
        **{name: version(name) for name in ("pyrovae", "torch", "pyro-ppl")},
        "Python": platform.python_version(),
        "platform": platform.platform(),
        FINGERPRINT: str(found.summary[FINGERPRINT]),
    }
