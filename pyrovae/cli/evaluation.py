"""The evaluation of a trained pair: estimates, their summary and figures, written into its run folder."""

import warnings
from pathlib import Path
from typing import Any

from pyrovae.cli import rate_distortion_file
from pyrovae.cli.annealed import anneal, forget, keep
from pyrovae.cli.drawing import draw_all
from pyrovae.cli.evaluated_data import fingerprint, first
from pyrovae.cli.figures import are_pictures, drawings, left_out, without_bounds
from pyrovae.cli.latent_space import LatentSpace
from pyrovae.cli.records import FINGERPRINT, write_summary
from pyrovae.cli.summary import estimate_summary, gap_summary, latent_lines, latent_summary
from pyrovae.data import Data
from pyrovae.evaluation import (
    ImportanceSamplingWarning,
    InferenceGaps,
    LogLikelihood,
    inference_gaps,
    log_likelihood,
    posterior_means,
)
from pyrovae.evaluation.annealing.path.initial_density import Start
from pyrovae.evaluation.likelihood.log_likelihood import Proposal
from pyrovae.runs.lock import LOCKED
from pyrovae.runs.results import writing_results
from pyrovae.runtime.batches import Columns, as_data
from pyrovae.vae import VAE

PARTICLES = (1, 5, 50, 500)
"""Numbers of particles at which the bound is estimated."""


def report(
    vae: VAE,
    data: Data,
    run: Path,
    *,
    num_samples: int,
    limit: int | None,
    device: str,
    seed: int = 0,
    proposal: Proposal = "guide",
    tolerance: float | None = None,
    level: float = 0.95,
    budget: int | None = None,
    num_chains: int = 16,
    temperatures: int | None = None,
    start: Start = "prior",
    refine: int | None = None,
    writes: bool = True,
) -> None:
    """Evaluate a pair on test data, write what was found into the run folder, and print it.

    Where there is a tolerance, log p(x) of each datum is estimated to it, and ``num_samples`` are the draws of ``refine``
    alone. Several processes share the work on log p(x); those of which ``writes`` is false do no more.
    """
    vae.to(device).eval()
    tested = first(as_data(data.test.fixed_draw()), limit)
    common: dict[str, Any] = {"seed": seed, "device": device, "progress": writes}
    gaps = None if refine is None else _gaps(vae, tested, num_samples, refine, common)
    options = {"proposal": proposal, "tolerance": tolerance, "level": level, "budget": budget}
    estimate = _estimate(vae, tested, num_samples, **options, **common)
    annealing = {"num_chains": num_chains, "temperatures": temperatures, "start": start, **common}
    if not writes:
        if temperatures is not None:
            anneal(vae, tested, **annealing)
        return
    means = posterior_means(vae, data.test.fixed_draw(), device=device)
    space = LatentSpace(vae, tested, are_pictures(data.event_shape), device)
    latent = latent_summary(vae, data, means, space, device)
    summary = {**estimate_summary(estimate), **latent, **gap_summary(gaps), FINGERPRINT: fingerprint(tested)}
    with writing_results(run):
        write_summary(run, summary)
        estimate.to_netcdf(run / "log_likelihood.nc")
        _print_table(estimate, summary, gaps)
        rate_distortion_file.keep(space.plane, run)
        forget(run)
        if temperatures is not None:
            annealed = anneal(vae, tested, **annealing)
            keep(*annealed, run)
            print(f"{annealed[0]}\n\n{annealed[1]}\n")
        draw_all(run / "figures", drawings(vae, tested, means, data.test.labels, estimate, run, device) | space.drawings)
    _list_files(run, left_out(data.event_shape, means) | without_bounds(estimate) | space.left_out)


def _gaps(vae: VAE, tested: Columns, num_samples: int, steps: int, common: dict[str, Any]) -> InferenceGaps:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportanceSamplingWarning)  # the table says it
        return inference_gaps(vae, tested.plain(), num_samples, steps=steps, **common)


def _estimate(vae: VAE, tested: Columns, num_samples: int, **options: Any) -> LogLikelihood:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportanceSamplingWarning)  # the table says it
        return log_likelihood(vae, tested.plain(), num_samples, num_particles=PARTICLES, **options)


def _print_table(estimate: LogLikelihood, summary: dict[str, Any], gaps: InferenceGaps | None) -> None:
    print(f"{estimate}\n\n{latent_lines(summary)}\n")
    if gaps is not None:
        print(f"With the guide's proposal refined for each datum: {gaps}\n")


def _list_files(run: Path, omitted: dict[str, str]) -> None:
    for name, reason in omitted.items():
        print(f"left out: {name}, because {reason}")
    print("files of the run:")
    for path in sorted(path for path in run.rglob("*") if path.is_file() and path.name != LOCKED):
        print(f"  {path}")
