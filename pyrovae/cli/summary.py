"""The numbers of an evaluation by name, as in ``summary.json``, and those of latent space in words."""

from typing import Any

import numpy as np
from torch import Tensor

from pyrovae.cli.latent_space import LatentSpace
from pyrovae.data import Data
from pyrovae.evaluation import (
    InferenceGaps,
    LogLikelihood,
    active_units,
    linear_probe,
    nearest_neighbour_accuracy,
    posterior_means,
)
from pyrovae.runtime.text_table import table_lines
from pyrovae.vae import VAE

NEIGHBOURS = 5
"""Number of neighbours that vote on a datum's label."""


def estimate_summary(estimate: LogLikelihood) -> dict[str, Any]:
    """The numbers of an estimate by name, in nats where not said otherwise."""
    summary: dict[str, Any] = {"test data": len(estimate.log_p), **_cost(estimate)}
    summary |= {f"IWAE-{count}" if count > 1 else "ELBO": float(bound.mean()) for count, bound in estimate.bounds.items()}
    if estimate.bits_per_dimension is not None:
        summary["bits per dimension"] = estimate.bits_per_dimension
    return summary | {
        "log p(x)": estimate.mean,
        "log p(x), bias-corrected": _or_none(estimate.jackknife.mean()),
        "log p(x), Pareto smoothed": _or_none(estimate.smoothed.mean()),
        "standard error over data": estimate.data_error,
        "standard error of the draws": estimate.monte_carlo_error,
        "largest k-hat": _or_none(np.nanmax(estimate.k_hat, initial=-np.inf)),
        "share untrusted": estimate.share_untrusted,
    }


def _cost(estimate: LogLikelihood) -> dict[str, Any]:
    """The draws of all data; or the tolerance, how many data met it, and what half of them cost at the most."""
    if (effort := estimate.effort) is None:
        return {"importance samples": estimate.num_samples}
    return {
        "tolerance": effort.tolerance,
        "level of the tolerance": effort.level,
        "share within the tolerance": effort.share_met,
        "median draws": float(np.median(effort.draws)),
        "median evaluations": float(np.median(effort.evaluations)),
    }


def gap_summary(gaps: InferenceGaps | None) -> dict[str, float]:
    """The parts of the gap between the ELBO and log p(x), where they were estimated."""
    if gaps is None:
        return {}
    parts = {
        "log p(x), refined proposal": gaps.refined.log_p,
        "amortization gap": gaps.amortization,
        "approximation gap": gaps.approximation,
    }
    return {name: float(values.mean()) for name, values in parts.items()}


def _or_none(value: float) -> float | None:
    """The number, or None for what JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def latent_summary(vae: VAE, data: Data, means: Tensor, space: LatentSpace, device: str) -> dict[str, Any]:
    """Active units, rate and distortion, the parts of the average KL, and how well latent means tell the labels."""
    number = active_units(means).number if len(means) > 1 else None
    summary: dict[str, Any] = {"active units": number, "latent dimensions": means.shape[1]}
    if (plane := space.plane) is not None:
        summary |= {"rate": plane.rate("run")[0], "distortion": plane.distortion("run")[0]}
    if (kl := space.kl) is not None:
        parts = {"average KL": kl.average_kl, "mutual information": kl.mutual_information, "marginal KL": kl.marginal_kl}
        summary |= {name: value for name, (value, _) in parts.items()} | {"data of the KL": kl.kl.shape[1]}
    if data.test.labels is None or data.train.labels is None or len(data.train) < NEIGHBOURS:
        return summary
    train_means = posterior_means(vae, data.train.fixed_draw(), device=device)
    labelled = train_means, data.train.labels, means, data.test.labels
    summary["kNN accuracy"] = nearest_neighbour_accuracy(*labelled, NEIGHBOURS)
    if len(np.unique(data.train.labels)) > 1:
        summary["linear probe"] = linear_probe(*labelled)
    return summary


def latent_lines(summary: dict[str, Any]) -> str:
    """The summary of latent space to read in a terminal."""
    known, dimensions = summary["active units"] is not None, summary["latent dimensions"]
    number = (str(summary["active units"]), f"of {dimensions}") if known else ("unknown", f"(of one datum) of {dimensions}")
    rows = [("active units", *number)]
    if "rate" in summary:
        rows.append(("rate", f"{summary['rate']:.3f}", f"(distortion {summary['distortion']:.3f}; their sum is -ELBO)"))
    if "average KL" in summary:
        rows.append(("average KL", f"{summary['average KL']:.3f}", _parts_of_kl(summary)))
    notes = {
        "kNN accuracy": "5 nearest latent means, against the labels",
        "linear probe": "logistic regression on the latent means",
    }
    rows += [(name, f"{summary[name]:.3f}", f"({note})") for name, note in notes.items() if name in summary]
    return "\n".join(table_lines(rows, "<><"))


def _parts_of_kl(summary: dict[str, Any]) -> str:
    ceiling = f"(of at most {np.log(summary['data of the KL']):.2f})"
    information, rest = summary["mutual information"], summary["marginal KL"]
    return f"= mutual information {information:.3f} {ceiling} + marginal KL {rest:.3f}"
