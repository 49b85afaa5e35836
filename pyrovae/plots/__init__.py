"""Figures, one a function: each takes data and, if wished, the axes to draw on, and returns the axes; none is shown."""

from pyrovae.plots.aggregate_posterior import aggregate_posterior
from pyrovae.plots.bound_against_particles import bound_against_particles
from pyrovae.plots.bound_curve import bound_curve
from pyrovae.plots.comparison import comparison
from pyrovae.plots.image_grid import image_grid
from pyrovae.plots.interpolations import interpolations
from pyrovae.plots.kl_per_dimension import kl_per_dimension
from pyrovae.plots.latent_map import latent_map
from pyrovae.plots.loss_curve import loss_curve
from pyrovae.plots.rate_distortion import rate_distortion
from pyrovae.plots.reconstructions import reconstructions
from pyrovae.plots.samples import samples
from pyrovae.plots.traversals import traversals

__all__ = [
    "aggregate_posterior",
    "bound_against_particles",
    "bound_curve",
    "comparison",
    "image_grid",
    "interpolations",
    "kl_per_dimension",
    "latent_map",
    "loss_curve",
    "rate_distortion",
    "reconstructions",
    "samples",
    "traversals",
]
