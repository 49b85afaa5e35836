"""Texts of a run that a page shows are shown, and are never part of the page."""

from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from pyrovae.evaluation import LogLikelihood, latent_map
from pyrovae.report import Annealed, Page, Points, render

hostile = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</ScRiPt ><img src=x onerror=alert(1)>",
    "<!--<script>",
    "--><svg onload=alert(1)>",
    "</style><style>body{background:url(//e)}",
    "</title></head><body onload=alert(1)>",
    "</code></pre><iframe src=javascript:alert(1)>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "{{ 7 * 7 }}{% for a in b %}{# #}",
    "javascript:alert(1)",
    "@{picture} @label{safe} $name",
    "&lt;b&gt;&#60;b&#62;",
    "\N{LINE SEPARATOR}</script>\N{RIGHT-TO-LEFT OVERRIDE}",
    "\x00\x1b]0;title\x07",
]


class Read(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.scripts, self.inside = [], "", [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.tags.append((tag, tuple(sorted(name for name, _ in attrs))))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data


def page(text: str) -> Page:
    """A page that says the text in every place that has one."""
    torch.manual_seed(0)
    log_p = np.zeros(6)
    points = Points(
        np.arange(6),
        log_p,
        log_p,
        trusted=log_p > 0,
        labels=np.arange(6) % 2,
        pictures=["data:,"] * 6,
        latent=latent_map(torch.randn(6, 2)),
    )
    return Page(
        name=text,
        facts={text: text, "data": text},
        summary={text: text, "log p(x)": -1.0, "ELBO": -2.0, "active units": 1, "latent dimensions": text},
        estimate=LogLikelihood.from_log_weights(torch.randn(50, 6), (1, 5)),
        points=points,
        metrics=[{"epoch": n, "train_bound": -1.0 * n, text: text} for n in range(4)],
        reconstructions=[("data:,", "data:,")],
        samples=["data:,"],
        annealed=Annealed(-1.0, 0.1, 10, 2, 0.5),
        left_out={"samples": text},
        notes={"k_hats": text, text: text, "context": text},
        config=f"model: {text}\n{text}: 1\n",
        provenance={text: text, "this page": text},
    )


@pytest.fixture(scope="module")
def plain():
    """A page without anything hostile."""
    return Read(render(page("plain")))


@pytest.mark.parametrize("text", hostile)
def test_hostile_texts_add_nothing_to_a_page(text, plain):
    found = Read(render(page(text)))
    assert found.tags == plain.tags
    assert len(found.scripts) == len(plain.scripts)
    assert text.replace("\x00", "\N{REPLACEMENT CHARACTER}") in found.text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert unescape(text) not in "".join(found.scripts) or unescape(text) in "".join(plain.scripts)


@pytest.mark.parametrize("axes", [*zip(hostile[::2], hostile[1::2], strict=True)])
def test_nor_do_texts_in_the_figures(axes, plain):
    """The names of axes stand in a script, where they are a text in JSON."""
    drawn = page("plain")
    latent = drawn.points.latent._replace(axes=axes)
    found = Read(render(replace(drawn, points=replace(drawn.points, latent=latent))))
    assert found.tags == plain.tags
    assert "<!--" not in found.scripts[-1]
