"""A page as one file of HTML, with all that it needs inside."""

import re
from base64 import b64encode
from hashlib import sha256

from bokeh.embed import components
from bokeh.models import Model
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pyrovae.report.bounds import bounds
from pyrovae.report.canvas import FONT, INK, LINES, QUIET, THEME, source
from pyrovae.report.k_hats import k_hats
from pyrovae.report.latent import latent
from pyrovae.report.page import Page
from pyrovae.report.training import training
from pyrovae.report.words import number, rows, rungs, said, verdict

WORST = 10
"""Number of data in the strip of those least to be trusted."""
_closing = re.compile(r"</(?=script)", re.IGNORECASE)


def render(page: Page) -> str:
    """Render the page as HTML.

    Text is escaped, and the page's own policy lets a browser run these scripts alone, known by their hashes, and load
    nothing from anywhere.
    """
    script, places = components(_figures(page), wrap_script=False, theme=THEME)
    scripts = [_closing.sub(r"<\\/", text) for text in (*_library(), script)]
    return _template().render(
        page=page,
        rows=list(rows(page)),
        verdict=verdict(page),
        rungs=rungs(page),
        worst=[(row, said(page.points, row)) for row in page.points.worst(WORST)],
        places={name: Markup(place) for name, place in places.items()},
        scripts=[Markup(text) for text in scripts],
        policy=_policy(scripts),
        number=number,
        style={"font": Markup(FONT), "ink": INK, "quiet": QUIET, "lines": LINES},
    )


def _figures(page: Page) -> dict[str, Model]:
    """Draw the figures by name, without those that are left out."""
    data = source(page.points)
    makers = {
        "bounds": lambda: bounds(page),
        "k_hats": lambda: k_hats(page, data),
        "latent_map": lambda: latent(page, data),
        "training": lambda: training(page),
    }
    return {name: make() for name, make in makers.items() if name not in page.left_out}


def _library() -> list[str]:
    return Resources(mode="inline", components=["bokeh"], minified=True).js_raw


def _policy(scripts: list[str]) -> str:
    """Write the policy of what a browser may load and run for this page."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"


def _template():
    environment = Environment(
        loader=PackageLoader("pyrovae.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")
