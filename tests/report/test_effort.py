"""What a page says of estimates to a tolerance: what answered each datum, what it took, and whom to trust."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from pyrovae.evaluation import LogLikelihood
from pyrovae.evaluation.estimates import effort
from pyrovae.evaluation.estimates.effort import Effort
from pyrovae.report import Page, Points, render, words
from pyrovae.report.words import rows, rungs, said, verdict

PROPOSALS = np.array([*["guide"] * 21, *["fitted"] * 15, *["annealed"] * 4])
"""What answered 40 data."""


def estimate(bad: int) -> LogLikelihood:
    """Estimates of 40 data, so many of which, the last, are not to be trusted."""
    good = np.arange(40) < 40 - bad
    draws = np.select([PROPOSALS == "guide", PROPOSALS == "fitted"], [1000, 5000], 64)
    made = Effort(0.1, 0.95, PROPOSALS, draws, 3 * draws, trusted=good, met=good)
    torch.manual_seed(0)
    return replace(LogLikelihood.from_log_weights(torch.randn(500, 40), (1, 5)), effort=made)


def page(found: LogLikelihood, **summary: float) -> Page:
    answers = None if found.effort is None else [f"{name}, 3 draws" for name in found.effort.proposal]
    points = Points(np.arange(40), found.log_p, found.k_hat, found.trusted, answers=answers)
    omitted = dict.fromkeys(("latent_map", "samples", "reconstructions", "training"), "there is none")
    return Page("run", {}, summary, found, points, [], left_out=omitted)


class Cells(HTMLParser):
    """The text of each cell of the table of proposals, by its rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows, self.inside, self.cell = [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside |= tag == "table" and ("id", "rungs") in attrs
        if self.inside and tag == "tr":
            self.rows.append([])
        self.cell = self.inside and tag in ("td", "th")

    def handle_endtag(self, tag):
        self.inside &= tag != "table"
        self.cell = False

    def handle_data(self, data):
        if self.cell:
            self.rows[-1].append(data)


def test_each_proposal_has_a_row_with_its_data_and_its_cost():
    found = rungs(page(estimate(1)))
    assert [row.proposal for row in found] == ["guide", "fitted", "annealed"]
    assert [[*row.numbers.values()] for row in found] == [
        ["21", "100.0%", "1,000", "3,000"],
        ["15", "100.0%", "5,000", "15,000"],
        ["4", "75.0%", "64", "192"],
    ]
    assert [*found[0].numbers] == ["data", "within ±0.1", "draws", "evaluations"]
    assert all(row.meaning for row in found)


def test_each_proposal_has_a_meaning():
    assert [*words.PROPOSALS] == [*effort.PROPOSALS]


def test_the_page_has_them_as_a_table_and_without_a_tolerance_none():
    made = page(estimate(1))
    header, *others = Cells(render(made)).rows
    assert header == ["answered by", "data", "within ±0.1", "draws", "evaluations"]
    assert others == [[row.proposal, *row.numbers.values(), row.meaning] for row in rungs(made)]
    plain = page(replace(made.estimate, effort=None))
    assert rungs(plain) == []
    assert not Cells(render(plain)).rows


def test_the_threshold_of_all_is_drawn_where_all_have_one():
    made = page(estimate(1))
    text = render(made)
    assert "not to be trusted" in text
    assert '"name":"Span"' not in text
    assert "broken line" not in text
    plain = render(page(replace(made.estimate, effort=None)))
    assert '"name":"Span"' in plain
    assert "broken line" in plain


@pytest.mark.parametrize(("bad", "share"), [(0, "100.0%"), (2, "95.0%")])
def test_the_verdict_is_that_of_the_tolerance(bad, share):
    made = page(estimate(bad))
    assert verdict(made).startswith(f"{share} of the data have an interval within ±0.1 nats at 95%")
    assert verdict(made) in render(made)


def test_a_tolerance_that_is_not_met_comes_first():
    text = render(page(estimate(3)))
    assert "Do not trust these numbers yet.</b> the tolerance of 0.1 nats is not met for 7.5% of the data" in text
    assert "can be believed" not in text


def test_each_datum_says_what_answered_it():
    made = page(estimate(1))
    assert said(made.points, 30)["answered by"] == "fitted, 3 draws"
    assert made.points.worst(1) == [39]
    assert "answered by annealed, 3 draws" in render(made)
    assert "answered by" not in said(page(replace(made.estimate, effort=None)).points, 30)


def test_the_numbers_of_a_tolerance_are_shown_in_their_units():
    numbers = {"tolerance": 0.005, "level of the tolerance": 0.95, "share within the tolerance": 0.5}
    cost = {"median draws": 500.0, "median evaluations": 2844.0}
    found = [*rows(page(estimate(0), **numbers, **cost))]
    assert [row.value for row in found] == ["±0.005", "95.0%", "50.0%", "500", "2,844"]
    assert all(row.meaning for row in found)
