"""One page of HTML about a trained pair: figures that answer the mouse, pictures, numbers; it needs no network."""

from pyrovae.report.page import Annealed, Page, Points
from pyrovae.report.pictures import data_uris, shrunk
from pyrovae.report.render import render

__all__ = ["Annealed", "Page", "Points", "data_uris", "render", "shrunk"]
