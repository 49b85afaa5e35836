"""The figures of a run: training, bounds, reconstructions, samples, the map of latent space."""

from pathlib import Path

from torch import Tensor

from pyrovae import plots
from pyrovae.cli.drawing import Drawing
from pyrovae.cli.generation import sample_means
from pyrovae.cli.records import read_metrics
from pyrovae.evaluation import LogLikelihood, latent_map, reconstructions
from pyrovae.runtime.batches import Batch, Columns, batches
from pyrovae.vae import VAE

MAPPED = 2000
"""Largest number of points in the map of latent space."""
EMBEDDED = 5
"""Smallest number of points in the map of a latent space of more than two dimensions."""


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
        "samples": lambda ax: plots.samples(sample_means(vae), ax),
        "latent_map": lambda ax: plots.latent_map(
            latent_map(means[:MAPPED]), None if labels is None else labels[:MAPPED], ax
        ),
    }
    omitted = left_out(tuple(shown.x.shape[1:]), means) | without_bounds(estimate)
    return {name: drawing for name, drawing in made.items() if name not in omitted}


def left_out(event_shape: tuple[int, ...], means: Tensor) -> dict[str, str]:
    """The figures that cannot be drawn of these data and latent means, each with the reason."""
    reasons: dict[str, str] = {}
    if not are_pictures(event_shape):
        reasons |= dict.fromkeys(("reconstructions", "samples"), f"data of shape {event_shape} are no pictures")
    if means.shape[1] < 2:
        reasons["latent_map"] = "latent space has one dimension"
    elif means.shape[1] > 2 and len(means) < EMBEDDED:
        reasons["latent_map"] = f"it needs at least {EMBEDDED} test data and there are {len(means)}"
    return reasons


def without_bounds(estimate: LogLikelihood) -> dict[str, str]:
    """The figure of bounds, where there are none, with the reason."""
    if estimate.bounds:
        return {}
    source = "the mixture of proposals" if estimate.effort is None else "the pair, whose guide is no proposal,"
    return {"bound_against_particles": f"{source} has no bounds of the guide"}


def are_pictures(event_shape: tuple[int, ...]) -> bool:
    """Whether data of this shape can be drawn: grey ``(H, W)`` and ``(1, H, W)``, and colour ``(3, H, W)``."""
    return len(event_shape) == 2 or (len(event_shape) == 3 and event_shape[0] in (1, 3))


def decoded(vae: VAE, shown: Batch) -> Tensor:
    """The reconstructions of a batch, on the CPU."""
    return reconstructions(vae, shown.plain(), num_samples=10).cpu()
