"""Estimates from log importance weights: log p(x), bounds, gradients, and the latent space of any pair."""

from pyrovae.evaluation.annealing.annealed_importance_sampling import annealed_importance_sampling
from pyrovae.evaluation.annealing.annealed_likelihood import AnnealedLikelihood
from pyrovae.evaluation.annealing.bidirectional import bidirectional
from pyrovae.evaluation.annealing.bidirectional_bounds import Bidirectional
from pyrovae.evaluation.estimates.effort import Effort
from pyrovae.evaluation.estimates.estimate import LogLikelihood
from pyrovae.evaluation.estimates.k_hat_warning import ImportanceSamplingWarning
from pyrovae.evaluation.gradients.gradient_statistics import gradient_statistics
from pyrovae.evaluation.gradients.signal_to_noise import GradientStatistics, GradientSummary
from pyrovae.evaluation.latent.active_units import ActiveUnits, active_units
from pyrovae.evaluation.latent.aggregate_posterior import AggregatePosterior, aggregate_posterior
from pyrovae.evaluation.latent.impute import impute
from pyrovae.evaluation.latent.interpolate import Interpolation, interpolate
from pyrovae.evaluation.latent.kl_decomposition import KLDecomposition, kl_decomposition
from pyrovae.evaluation.latent.latent_map import LatentMap, latent_map
from pyrovae.evaluation.latent.linear_probe import linear_probe
from pyrovae.evaluation.latent.nearest_neighbours import nearest_neighbour_accuracy
from pyrovae.evaluation.latent.posterior_means import posterior_means
from pyrovae.evaluation.latent.rate_distortion import RateDistortion, rate_distortion
from pyrovae.evaluation.latent.reconstructions import reconstructions
from pyrovae.evaluation.latent.traverse import Traversal, traverse
from pyrovae.evaluation.likelihood.bound_curve import BoundCurve, bound_curve
from pyrovae.evaluation.likelihood.compare import Comparison, compare
from pyrovae.evaluation.likelihood.inference_gaps import InferenceGaps, inference_gaps
from pyrovae.evaluation.likelihood.log_likelihood import log_likelihood
from pyrovae.evaluation.likelihood.refine import refine

__all__ = [
    "ActiveUnits",
    "AggregatePosterior",
    "AnnealedLikelihood",
    "Bidirectional",
    "BoundCurve",
    "Comparison",
    "Effort",
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
