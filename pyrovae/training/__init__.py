"""Training: the loop alone."""

from pyrovae.training.dry_run import EvaluationModeWarning
from pyrovae.training.failing_site import NonFiniteError
from pyrovae.training.fit import fit
from pyrovae.training.history import History
from pyrovae.training.signals import Interrupted
from pyrovae.training.unmoved_parameters import UnmovedParameterWarning

__all__ = ["EvaluationModeWarning", "History", "Interrupted", "NonFiniteError", "UnmovedParameterWarning", "fit"]
