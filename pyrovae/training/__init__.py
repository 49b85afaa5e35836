"""Training: the loop alone."""

from pyrovae.training.blame import NonFiniteError
from pyrovae.training.fit import History, fit
from pyrovae.training.signals import Interrupted
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

__all__ = ["History", "Interrupted", "NonFiniteError", "UnmovedParameterWarning", "fit"]
