"""The numbers of a run as text."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pyrovae.report.page import Page, Points

MEANINGS = {
    "log p(x)": "How probable the model finds a datum that it never saw, mean over the data. Higher is better; only models "
    "of the same data can be compared by it.",
    "standard error over data": "How far that mean would move with other test data.",
    "standard error of the draws": "How far that mean would move with other draws for the same data.",
    "ELBO": "The bound that the guide reaches with one draw. Its distance from log p(x) is how far the guide is from the "
    "posterior, KL(q || p).",
    "log p(x), bias-corrected": "The same without the bias that few draws leave, by the jackknife.",
    "log p(x), Pareto smoothed": "The same with the largest weights smoothed, as k-hat's distribution has them.",
    "log p(x), refined proposal": "The same from a proposal that was improved for each datum by itself.",
    "amortization gap": "What the ELBO gains by that: what the encoder lacks.",
    "approximation gap": "What it lacks of log p(x) even so: what the guide's family lacks.",
    "bits per dimension": "The same as log p(x), as the length of a code for one number of a datum. Lower is better.",
    "largest k-hat": "How heavy the tail of a datum's importance weights is, at worst. Below 0.5 their variance is finite; "
    "above the threshold their mean is not to be trusted.",
    "share untrusted": "The part of the data whose log p(x) is not to be trusted: k-hat is above the threshold, or there is "
    "none.",
    "share of k-hat above threshold": "The part of the data whose k-hat is too large; an earlier version left out those "
    "without one.",
    "active units": "Latent dimensions that move with the data; the others hold only noise.",
    "rate": "The KL of the guide from the prior: nats of latent a datum. Rate and distortion make up the ELBO.",
    "distortion": "What the decoder misses of a datum, given its latent: the negative reconstruction term.",
    "average KL": "How far the guide moves from the prior for a datum, in the mean.",
    "mutual information": "The part of the average KL that tells the data apart.",
    "marginal KL": "The other part: how far the latents of all data together are from the prior.",
    "linear probe": "How often logistic regression on the latent means finds a datum's label.",
    "kNN accuracy": "How often a datum's label is that of most of its 5 nearest latent means in the training data.",
    "test data": "Data that training did not see; the numbers above are of these.",
    "importance samples": "Latents drawn from the guide for each datum.",
}
"""Meaning of each number of ``summary.json``, in the order in which they are shown."""
UNNAMED = {"latent dimensions", "data of the KL", "fingerprint of the test data"}
"""Names of numbers that stand elsewhere on the page."""


class Row(NamedTuple):
    """A row of the table."""

    name: str
    value: str
    meaning: str


def number(value: float | None, digits: int = 2) -> str:
    """Format a number for reading, with a true minus sign; a dash for none."""
    if value is None or np.isnan(value):
        return "\N{EN DASH}"
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}").replace("inf", "\N{INFINITY}")


def rows(page: Page) -> Iterator[Row]:
    """Arrange the numbers of a summary, the most wanted first."""
    known = [name for name in MEANINGS if name in page.summary]
    bounds = [name for name in page.summary if name.startswith("IWAE-")]
    place = known.index("ELBO") + 1 if "ELBO" in known else len(known)
    others = [name for name in page.summary if name not in {*known, *bounds, *UNNAMED}]
    for name in (*known[:place], *bounds, *known[place:], *others):
        yield Row(name, _value(name, page), _meaning(name))


def _meaning(name: str) -> str:
    if particles := re.fullmatch(r"IWAE-(\d+)", name):
        return f"The bound with {int(particles[1]):,} draws: closer to log p(x) the more there are."
    return MEANINGS.get(name, "")


def _value(name: str, page: Page) -> str:
    value = page.summary[name]
    if name == "active units":
        return f"{'unknown (of one datum)' if value is None else value} of {page.summary.get('latent dimensions', '?')}"
    if name in ("kNN accuracy", "linear probe", "share untrusted", "share of k-hat above threshold") and value is not None:
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value, _digits(name)) if isinstance(value, float | None) else str(value)


def _digits(name: str) -> int:
    """Choose the digits of a number: an error of the draws is small."""
    return 4 if name == "standard error of the draws" else 2


def verdict(page: Page) -> str:
    """Word the verdict on the estimates, where there is no warning."""
    estimate = page.estimate
    said = (
        f"{estimate.share_untrusted:.1%} of the data are not trusted (their k-hat is above {number(estimate.threshold)}, or "
        "there is none), which is few: the estimates and their errors can be believed."
    )
    missing = int((np.isnan(estimate.k_hat) & estimate.trusted).sum())
    return said + (f" For {missing:,} data equal weights, or a safe proposal, take the place of a k-hat." if missing else "")


def said(points: Points, row: int) -> dict[str, Any]:
    """Format the numbers of one datum, by name."""
    known = {"datum": f"{points.index[row]}"}
    if points.labels is not None:
        known["label"] = f"{points.labels[row]}"
    return {**known, "log p(x)": number(points.log_p[row]), "k-hat": number(points.k_hat[row])}
