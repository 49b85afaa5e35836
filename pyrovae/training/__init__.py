"""Training: the loop alone."""

from pyrovae.training.fit import History, fit
from pyrovae.training.signals import Interrupted

__all__ = ["History", "Interrupted", "fit"]
