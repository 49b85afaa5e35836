"""Priors: p(z), one a file."""

from pyrovae.priors.prior import Prior
from pyrovae.priors.standard_normal import StandardNormal

__all__ = ["Prior", "StandardNormal"]
