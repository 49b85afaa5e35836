"""The numbers of a run as text."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pyrovae.evaluation.estimates.effort import Rung
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
    "tolerance": "What was asked for: the largest distance in nats from a datum's log p(x) to an end of its interval.",
    "level of the tolerance": "How often such an interval is meant to hold log p(x).",
    "share within the tolerance": "The part of the data that reached it, with diagnostics that hold.",
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
    "median draws": "Latents drawn for the estimate of a datum, in the median.",
    "median evaluations": "Evaluations of the model that a datum took in all, in the median; a gradient counts as three.",
}
"""Meaning of each number of ``summary.json``, in the order in which they are shown."""
UNNAMED = {"latent dimensions", "data of the KL", "fingerprint of the test data"}
"""Names of numbers that stand elsewhere on the page."""
SHARES = {
    *("kNN accuracy", "linear probe", "level of the tolerance", "share within the tolerance"),
    *("share untrusted", "share of k-hat above threshold"),
}
"""Names of numbers that are shown as percentages."""
PROPOSALS = {
    "guide": "Draws from the guide, as it was trained.",
    "mixture": "Draws from the guide mixed with a wider one and with the prior.",
    "fitted": "Draws from a normal distribution that was fitted to the datum, mixed with the guide and the prior.",
    "annealed": "Chains that begin with draws from such a distribution, and are annealed to the posterior.",
    "annealed from prior": "Chains that begin with draws from the prior, and are annealed to the posterior.",
}
"""Meaning of each proposal."""


class Row(NamedTuple):
    """A row of the table."""

    name: str
    value: str
    meaning: str


class RungRow(NamedTuple):
    """A row of the table of proposals."""

    proposal: str
    numbers: dict[str, str]
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
    if name in SHARES and value is not None:
        return f"{value:.1%}"
    if name == "tolerance" and isinstance(value, float):
        return f"±{value:g}"
    if isinstance(value, int) or (name in ("median draws", "median evaluations") and isinstance(value, float)):
        return f"{value:,.0f}"
    return number(value, _digits(name)) if isinstance(value, float | None) else str(value)


def _digits(name: str) -> int:
    """Choose the digits of a number: an error of the draws is small."""
    return 4 if name == "standard error of the draws" else 2


def rungs(page: Page) -> list[RungRow]:
    """Arrange what each proposal answered; nothing where all draws are of one kind."""
    effort = page.estimate.effort
    return [] if effort is None else [_rung(rung, effort.tolerance) for rung in effort.rungs()]


def _rung(rung: Rung, tolerance: float) -> RungRow:
    numbers = {
        "data": f"{rung.data:,}",
        f"within ±{tolerance:g}": f"{rung.share_met:.1%}",
        "draws": f"{rung.draws:,.0f}",
        "evaluations": f"{rung.evaluations:,.0f}",
    }
    return RungRow(rung.proposal, numbers, PROPOSALS[rung.proposal])


def verdict(page: Page) -> str:
    """Word the verdict on the estimates, where there is no warning."""
    estimate = page.estimate
    if (effort := estimate.effort) is not None:
        return (
            f"{effort.share_met:.1%} of the data have an interval within ±{effort.tolerance:g} nats at "
            f"{100 * effort.level:g}% and diagnostics that hold: the estimates and their errors can be believed."
        )
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
    numbers = {"log p(x)": number(points.log_p[row]), "k-hat": number(points.k_hat[row])}
    return known | numbers | ({} if points.answers is None else {"answered by": points.answers[row]})
