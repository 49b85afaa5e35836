"""Likelihoods: parameters to p(x | z), one a file."""

from pyrovae.likelihoods.bernoulli import Bernoulli
from pyrovae.likelihoods.likelihood import Likelihood
from pyrovae.likelihoods.normal import Normal

__all__ = ["Bernoulli", "Likelihood", "Normal"]
