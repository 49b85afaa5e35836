"""Experiments: from a configuration to a pair, its data and its objective, and back from a run folder."""

from pyrovae.experiment.load import load

__all__ = ["load"]
