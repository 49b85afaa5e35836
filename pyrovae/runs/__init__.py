"""Run folders on disk, with checkpoints, metrics and results; they know nothing of training."""

from pyrovae.runs.results import verify
from pyrovae.runs.run import Run

__all__ = ["Run", "verify"]
