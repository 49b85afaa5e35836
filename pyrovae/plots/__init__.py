"""Figures, one a function: each takes data and, if wished, the axes to draw on, and returns the axes; none is shown."""

from pyrovae.plots.bound_against_particles import bound_against_particles
from pyrovae.plots.bound_curve import bound_curve
from pyrovae.plots.comparison import comparison
from pyrovae.plots.image_grid import image_grid
from pyrovae.plots.latent_map import latent_map
from pyrovae.plots.loss_curve import loss_curve
from pyrovae.plots.reconstructions import reconstructions
from pyrovae.plots.samples import samples

__all__ = [
    "bound_against_particles",
    "bound_curve",
    "comparison",
    "image_grid",
    "latent_map",
    "loss_curve",
    "reconstructions",
    "samples",
]
