"""The engine: any two Pyro programs to their log importance weights."""

from pyrovae.engine.log_weights import log_weights
from pyrovae.engine.particles import ParticlesInTurnWarning
from pyrovae.engine.plates import Plates
from pyrovae.engine.validation import find_plates
from pyrovae.engine.weights import LogWeights

__all__ = ["LogWeights", "ParticlesInTurnWarning", "Plates", "find_plates", "log_weights"]
