"""What is said and drawn of a trained pair: a table, the estimates as a file, and figures."""

import json
import math
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import Subset

from pyrovae import plots
from pyrovae.cli import rate_distortion_file
from pyrovae.cli.annealed import anneal, forget, keep
from pyrovae.cli.compare import FINGERPRINT
from pyrovae.cli.latent import Drawing, LatentSpace, latent_lines, latent_summary
from pyrovae.cli.records import read_metrics
from pyrovae.data import Data
from pyrovae.errors import InputError
from pyrovae.evaluation import (
    ImportanceSamplingWarning,
    InferenceGaps,
    LogLikelihood,
    inference_gaps,
    latent_map,
    log_likelihood,
    posterior_means,
    reconstructions,
)
from pyrovae.evaluation.annealing.path import Start
from pyrovae.evaluation.likelihood.log_likelihood import Proposal
from pyrovae.runs.results import writing_results
from pyrovae.runtime.batches import Batch, Columns, as_data, batches
from pyrovae.vae import VAE

bounds = (1, 5, 50, 500)
"""Numbers of particles at which the bound is estimated."""
mapped = 2000
"""Points in the map of latent space, at the most."""
embedded = 5
"""Points in the map of a latent space of more than two dimensions, at the least."""


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
    chains: int = 16,
    temperatures: int | None = None,
    start: Start = "prior",
    refine: int | None = None,
    writes: bool = True,
) -> None:
    """Evaluate a pair on test data, write what was found into the run folder, and print it.

    Several processes share the work on log p(x); those of which ``writes`` is false do no more.
    """
    vae.to(device).eval()
    tested = first(as_data(data.test.fixed_draw()), limit)
    common: dict[str, Any] = {"seed": seed, "device": device, "progress": writes}
    gaps, estimate = _estimates(vae, tested, num_samples, refine, proposal, common)
    annealing = {"chains": chains, "temperatures": temperatures, "start": start, **common}
    if not writes:
        if temperatures is not None:
            anneal(vae, tested, **annealing)
        return
    means = posterior_means(vae, data.test.fixed_draw(), device=device)
    space = LatentSpace(vae, tested, are_pictures(data.event_shape), device)
    latent = latent_summary(vae, data, means, space, device)
    summary = {**summarise(estimate), **latent, **in_parts(gaps), FINGERPRINT: fingerprint(tested)}
    with writing_results(run):
        (run / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        estimate.to_netcdf(run / "log_likelihood.nc")
        print(f"{estimate}\n\n{latent_lines(summary)}\n")
        if gaps is not None:
            print(f"With the guide's proposal refined for each datum: {gaps}\n")
        rate_distortion_file.keep(space.plane, run)
        forget(run)
        if temperatures is not None:
            annealed = anneal(vae, tested, **annealing)
            keep(*annealed, run)
            print(f"{annealed[0]}\n\n{annealed[1]}\n")
        _draw_all(run, drawings(vae, tested, means, data.test.labels, estimate, run, device) | space.drawings)
    _list_files(run, left_out(data.event_shape, means) | without_bounds(estimate) | space.left_out)


def _estimates(
    vae: VAE, tested: Columns, num_samples: int, refine: int | None, proposal: Proposal, common: dict[str, Any]
) -> tuple[InferenceGaps | None, LogLikelihood]:
    """What the guide lacks, if that is asked for, and log p(x); a guide that cannot be refined is refused at once."""
    work = vae, tested.plain(), num_samples
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportanceSamplingWarning)  # the table says it
        gaps = None if refine is None else inference_gaps(*work, steps=refine, **common)
        return gaps, log_likelihood(*work, num_particles=bounds, proposal=proposal, **common)


def _list_files(run: Path, omitted: dict[str, str]) -> None:
    for name, reason in omitted.items():
        print(f"left out: {name}, because {reason}")
    print("files of the run:")
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        print(f"  {path}")


def fingerprint(tested: Columns) -> str:
    """What tells these data, and which of their numbers were observed, from others."""
    digest = sha256()
    for batch in batches(tested, 1000):
        for column in (batch.x, *(value for name, value in batch.given.items() if name == "mask")):
            digest.update(f"{tuple(column.shape)} {column.dtype}".encode())
            digest.update(column.contiguous().numpy().tobytes())
    return digest.hexdigest()


def summarise(estimate: LogLikelihood) -> dict[str, Any]:
    """The numbers of an estimate that one compares, by name; in nats where not said otherwise."""
    summary: dict[str, Any] = {"test data": len(estimate.log_p), "importance samples": estimate.num_samples}
    summary |= {f"IWAE-{count}" if count > 1 else "ELBO": float(bound.mean()) for count, bound in estimate.bounds.items()}
    if estimate.bits_per_dimension is not None:
        summary["bits per dimension"] = estimate.bits_per_dimension
    return summary | {
        "log p(x)": estimate.mean,
        "log p(x), less its bias": _or_none(estimate.jackknife.mean()),
        "log p(x), Pareto smoothed": _or_none(estimate.smoothed.mean()),
        "standard error over data": estimate.data_error,
        "standard error of the draws": estimate.monte_carlo_error,
        "largest k-hat": _or_none(np.nanmax(estimate.k_hat, initial=-np.inf)),
        "share of k-hat above threshold": estimate.share_above,
    }


def in_parts(gaps: InferenceGaps | None) -> dict[str, float]:
    """What the ELBO lacks to log p(x), as far as that was looked into."""
    if gaps is None:
        return {}
    parts = {
        "log p(x), refined proposal": gaps.refined.log_p,
        "amortisation gap": gaps.amortization,
        "approximation gap": gaps.approximation,
    }
    return {name: float(values.mean()) for name, values in parts.items()}


def _or_none(value: float) -> float | None:
    """The number, or None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def drawings(
    vae: VAE, tested: Columns, means: Tensor, labels: Tensor | None, estimate: LogLikelihood, run: Path, device: str
) -> dict[str, Drawing]:
    """The figures of a run, by name; without those that are left out."""
    shown = next(batches(tested, 10, device=device))
    metrics = read_metrics(run)
    made: dict[str, Drawing] = {
        "loss_curve": lambda ax: plots.loss_curve(metrics, ax),
        "bound_against_particles": lambda ax: plots.bound_against_particles(estimate, ax),
        "reconstructions": lambda ax: plots.reconstructions(shown.x.cpu(), decoded(vae, shown), ax),
        "samples": lambda ax: plots.samples(generated(vae), ax),
        "latent_map": lambda ax: plots.latent_map(
            latent_map(means[:mapped]), None if labels is None else labels[:mapped], ax
        ),
    }
    omitted = left_out(tuple(shown.x.shape[1:]), means) | without_bounds(estimate)
    return {name: drawing for name, drawing in made.items() if name not in omitted}


def left_out(event_shape: tuple[int, ...], means: Tensor) -> dict[str, str]:
    """The figures that cannot be drawn of such data and latent means, each with the reason."""
    reasons: dict[str, str] = {}
    if not are_pictures(event_shape):
        reasons |= dict.fromkeys(("reconstructions", "samples"), f"data of shape {event_shape} are no pictures")
    if means.shape[1] < 2:
        reasons["latent_map"] = "latent space has one dimension"
    elif means.shape[1] > 2 and len(means) < embedded:
        reasons["latent_map"] = f"it needs at least {embedded} test data and there are {len(means)}"
    return reasons


def without_bounds(estimate: LogLikelihood) -> dict[str, str]:
    """The figure of bounds, where there are none, with the reason."""
    return {} if estimate.bounds else {"bound_against_particles": "the mixture of proposals has no bounds of the guide"}


def are_pictures(event_shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be drawn: grey ``(H, W)`` and ``(1, H, W)``, and colour ``(3, H, W)``."""
    return len(event_shape) == 2 or (len(event_shape) == 3 and event_shape[0] in (1, 3))


@torch.no_grad()
def generate(vae: VAE, number: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """New data from the model and, for each, the mean of p(x | z): both of shape ``(number, *event_shape)``.

    A model that is conditioned on labels is given these.

    Raises:
        InputError: where they are not finite.
    """
    from pyro import poutine

    context = None if labels is None else one_hot(labels, math.prod(vae.context_shape or (1,))).float()
    place = next((value.device for value in vae.parameters()), None)
    context = None if context is None else context.to(place)
    site: Any = poutine.trace(vae.model).get_trace(None, context, size=number).nodes["x"]
    drawn = site["value"], site["fn"].mean
    if not all(torch.isfinite(value).all() for value in drawn):
        raise InputError("the model draws data that are not finite; expected a trained pair: train again")
    return drawn


def labels_in_turn(vae: VAE, number: int) -> Tensor | None:
    """As many labels, sorted, each as often as the others; ``None`` for a model that is not conditioned on any."""
    return None if vae.context_shape is None else torch.arange(number) * math.prod(vae.context_shape) // number


def decoded(vae: VAE, shown: Batch) -> Tensor:
    """What the model makes of the latents of a batch, on the CPU."""
    return reconstructions(vae, shown.plain(), num_samples=10).cpu()


def generated(vae: VAE) -> Tensor:
    """The means of data drawn from the model, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return generate(vae, 64, labels_in_turn(vae, 64))[1].cpu()


def _draw_all(run: Path, made: dict[str, Drawing]) -> None:
    (run / "figures").mkdir(exist_ok=True)
    for name, drawing in made.items():
        draw(run / "figures" / f"{name}.png", drawing)


def draw(path: Path, drawing: Drawing) -> None:
    """Draw one figure into a PNG file."""
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    drawing(figure.add_subplot())
    figure.savefig(path, dpi=150, bbox_inches="tight")


def first(tested: Columns, limit: int | None) -> Columns:
    """The first so many of the data, or all."""
    if limit is None or limit >= len(tested):
        return tested
    if isinstance(tested.x, Tensor):
        return tested.rows(slice(limit))
    return Columns(Subset(tested.x, range(limit)), {name: value[:limit] for name, value in tested.given.items()})
