"""Objectives: log importance weights to a loss, one bound a file."""

from pyrovae.objectives.elbo import ELBO
from pyrovae.objectives.iwae import IWAE
from pyrovae.objectives.objective import Measurement, Objective, ObjectiveModule

__all__ = ["ELBO", "IWAE", "Measurement", "Objective", "ObjectiveModule"]
