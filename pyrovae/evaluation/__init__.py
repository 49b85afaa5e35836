"""Estimates from log importance weights: log p(x), bounds, gradients, and the latent space of any pair."""

from pyrovae.evaluation.active_units import ActiveUnits, active_units
from pyrovae.evaluation.aggregate_posterior import AggregatePosterior, aggregate_posterior
from pyrovae.evaluation.annealed_importance_sampling import AnnealedLikelihood, annealed_importance_sampling
from pyrovae.evaluation.bidirectional import Bidirectional, bidirectional
from pyrovae.evaluation.bound_curve import BoundCurve, bound_curve
from pyrovae.evaluation.compare import Comparison, compare
from pyrovae.evaluation.estimate import ImportanceSamplingWarning, LogLikelihood
from pyrovae.evaluation.gradient_statistics import GradientStatistics, GradientSummary, gradient_statistics
from pyrovae.evaluation.impute import impute
from pyrovae.evaluation.interpolate import Interpolation, interpolate
from pyrovae.evaluation.kl_decomposition import KLDecomposition, kl_decomposition
from pyrovae.evaluation.latent_map import LatentMap, latent_map
from pyrovae.evaluation.linear_probe import linear_probe
from pyrovae.evaluation.log_likelihood import log_likelihood
from pyrovae.evaluation.nearest_neighbours import nearest_neighbour_accuracy
from pyrovae.evaluation.posterior_means import posterior_means
from pyrovae.evaluation.rate_distortion import RateDistortion, rate_distortion
from pyrovae.evaluation.reconstructions import reconstructions
from pyrovae.evaluation.refine import InferenceGaps, inference_gaps, refine
from pyrovae.evaluation.traverse import Traversal, traverse

__all__ = [
    "ActiveUnits",
    "AggregatePosterior",
    "AnnealedLikelihood",
    "Bidirectional",
    "BoundCurve",
    "Comparison",
    "GradientStatistics",
    "GradientSummary",
    "ImportanceSamplingWarning",
    "InferenceGaps",
    "Interpolation",
    "KLDecomposition",
    "LatentMap",
    "LogLikelihood",
    "RateDistortion",
    "Traversal",
    "active_units",
    "aggregate_posterior",
    "annealed_importance_sampling",
    "bidirectional",
    "bound_curve",
    "compare",
    "gradient_statistics",
    "impute",
    "inference_gaps",
    "interpolate",
    "kl_decomposition",
    "latent_map",
    "linear_probe",
    "log_likelihood",
    "nearest_neighbour_accuracy",
    "posterior_means",
    "rate_distortion",
    "reconstructions",
    "refine",
    "traverse",
]
