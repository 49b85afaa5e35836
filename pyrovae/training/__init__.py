"""Training: the loop, its checkpoints, the run folder, and the configuration of them all."""

from pyrovae.training.compiled import compile
from pyrovae.training.fit import History, fit
from pyrovae.training.interrupt import Interrupted
from pyrovae.training.load import load
from pyrovae.training.results import verify
from pyrovae.training.run import Run

__all__ = ["History", "Interrupted", "Run", "compile", "fit", "load", "verify"]
