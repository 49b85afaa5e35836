"""The data that a page shows as those least to be trusted, and its verdict where there is no warning."""

import math

import numpy as np
import torch

from pyrovae.evaluation import LogLikelihood
from pyrovae.report import Page, Points
from pyrovae.report.words import rows, verdict


def page(log_weights: torch.Tensor, **summary: float) -> Page:
    found = LogLikelihood.from_log_weights(log_weights)
    points = Points(np.arange(len(found.log_p)), found.log_p, found.k_hat, found.trusted)
    return Page(name="", facts={}, summary=summary, estimate=found, points=points, metrics=[])


def test_the_untrusted_without_a_k_hat_come_first_and_what_was_not_evaluated_nowhere():
    points = Points(
        index=np.arange(6),
        log_p=np.array([-1.0, -1.0, math.nan, -1.0, -1.0, -math.inf]),
        k_hat=np.array([0.2, math.inf, math.nan, math.nan, 0.9, math.nan]),
        trusted=np.array([True, False, False, True, False, False]),
    )
    assert points.worst(9) == [5, 1, 4, 0, 3]
    assert points.worst(2) == [5, 1]


def test_the_verdict_says_what_takes_the_place_of_a_k_hat():
    log_weights = 0.3 * torch.randn(500, 40, dtype=torch.float64)
    assert "0.0% of the data" in verdict(page(log_weights))
    assert "equal weights" not in verdict(page(log_weights))
    log_weights[:, :3] = -5.0
    assert "For 3 data equal weights" in verdict(page(log_weights))
    log_weights[0, 0] = 50.0
    assert "2.5% of the data" in verdict(page(log_weights))
    assert "For 2 data equal weights" in verdict(page(log_weights))
    assert page(log_weights[:20]).estimate.warning


def test_summaries_of_earlier_versions_keep_the_name_of_what_they_counted():
    found = [*rows(page(torch.randn(50, 3), **{"share untrusted": 0.5, "share of k-hat above threshold": 0.25}))]
    assert [(row.name, row.value) for row in found] == [
        ("share untrusted", "50.0%"),
        ("share of k-hat above threshold", "25.0%"),
    ]
    assert all(row.meaning for row in found)
