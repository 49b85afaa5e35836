"""The engine: any two Pyro programs to their log importance weights."""

from pyrovae.engine.particles import ParticlesInTurnWarning
from pyrovae.engine.weights import LogWeights, Plates, find_plates, log_weights

__all__ = ["LogWeights", "ParticlesInTurnWarning", "Plates", "find_plates", "log_weights"]
